"""The rows of the frontier: what points are worth and take here, in order and marked.

Either half alone is usable. Without a measurement of time, points are ordered by the tokens that
they compute; without one of quality, a point is assumed to be worth more the more visual tokens and
slots it keeps. Both are said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from tightrope.latency_file import LatencyKey
from tightrope.paired import interval95, mean_score
from tightrope.point import OperatingPoint
from tightrope.profiles.frontier.domination import Candidate, Worth, dominators
from tightrope.profiles.frontier.took import Took
from tightrope.profiles.frontier.typical import Typical
from tightrope.profiles.latency.goodput import Slos
from tightrope.profiles.quality.agreement import RankCorrelation
from tightrope.quality_file import MeasuredPoint, QualityKey
from tightrope.schemas import versioned

if TYPE_CHECKING:
    from tightrope.runtime.count import Count

Order = Literal["total_p95_ms", "tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One point."""

    point: OperatingPoint
    asked: MeasuredPoint | None
    """Every question that was asked at it; None where its quality is not measured."""
    took: Took | None
    """None where nothing of the machine is measured."""
    count: Count | None
    """What the typical request spends; None where it cannot be asked at this point."""
    dominated_by: OperatingPoint | None = None
    on_frontier: bool = False
    notes: tuple[str, ...] = ()

    @property
    def quality(self) -> float | None:
        """Mean score, 0..1."""
        return None if self.asked is None else mean_score(self.asked)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % of the quality."""
        quality, n = self.quality, self.questions
        return None if quality is None else interval95(quality * n, n)

    @property
    def questions(self) -> int:
        return 0 if self.asked is None else len(self.asked.outcomes)

    @property
    def beaten_by(self) -> OperatingPoint | None:
        """The point that it left the race for."""
        return None if self.asked is None else self.asked.beaten_by

    @property
    def tokens(self) -> int | None:
        """Computed by the tower and read by the decoder: work where time is not known."""
        count = self.count
        if count is None:
            return None
        return count.prompt_tokens + count.visual_tokens_kept

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        count = self.count
        return {
            "point": asdict(self.point),
            "quality": self.quality,
            "interval": self.interval,
            "questions": self.questions,
            "latency": None if self.took is None else self.took.to_dict(),
            "tokens": self.tokens,
            "visual_tokens": None if count is None else count.visual_tokens,
            "visual_tokens_kept": None if count is None else count.visual_tokens_kept,
            "occupied_slots": None if count is None else count.occupied_slots,
            "slot_bytes": None if count is None else count.slot_bytes,
            "on_frontier": self.on_frontier,
            "dominated_by": None if self.dominated_by is None else asdict(self.dominated_by),
            "beaten_by": None if self.beaten_by is None else asdict(self.beaten_by),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """All points, the cheapest first."""

    bundle: str
    """Its folder."""
    key: LatencyKey
    """The machine, and the bundle's digest."""
    task: QualityKey | None
    """By what quality was measured; None: it is assumed."""
    request: Typical
    """What is counted, and predicted where points were not measured."""
    order: Order
    rows: tuple[Row, ...]
    slos: Slos
    """Promises that measured runs are counted by."""
    untimed: str | None = None
    """Why the time of points is not known; None where it is."""
    agreement: RankCorrelation | None = None
    """How far agreement with the unpruned answer tells accuracy; None where it cannot be told."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing, and how to have it."""
        notes = []
        if self.untimed is not None:
            whole = "points are ordered by the tokens that they compute"
            some = "points without a time are not compared"
            notes.append(f"{self.untimed}; until then {whole if self.order == 'tokens' else some}")
        if self.task is None:
            notes.append(
                f"quality: assumed, the more is kept the better; {measure_quality(self.bundle)}"
            )
        return tuple(notes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with a schema number."""
        machine = asdict(self.key)
        task = self.task
        about = None if task is None else {"name": task.task_name, "digest": task.task}
        return versioned(
            "frontier",
            {
                "bundle": self.bundle,
                "digest": machine.pop("bundle"),
                "machine": machine,
                "task": about,
                "quality": "assumed" if task is None else task.measure,
                "request": self.request.to_dict(),
                "slos": dict(self.slos),
                "order": self.order,
                "agreement": None if self.agreement is None else self.agreement.to_dict(),
                "points": [row.to_dict() for row in self.rows],
                "notes": list(self.notes),
            },
        )


def measure_quality(bundle: str) -> str:
    """What has to be done to know the quality."""
    return f"`tightrope profile {bundle} --task DIR --quality-only` measures it"


def marked(rows: Sequence[Row], order: Order) -> tuple[Row, ...]:
    """The rows in order, those on the frontier marked, and the others with what dominates them.

    A point that left the race was asked too little to be judged by its mean: it neither dominates
    nor is on the frontier.
    """
    assumed = all(row.asked is None for row in rows)
    left = [row.beaten_by is not None for row in rows]
    if all(left):  # a damaged file: somebody has won
        left = [False] * len(rows)
    candidates = [
        Candidate(
            cost=None if gone else cost_of(row, order),
            worth=assumed_worth(row) if assumed else _measured_worth(row),
        )
        for row, gone in zip(rows, left, strict=True)
    ]
    found = [
        replace(
            row,
            dominated_by=None if place is None else rows[place].point,
            on_frontier=place is None and None not in (candidate.cost, candidate.worth),
        )
        for row, candidate, place in zip(rows, candidates, dominators(candidates), strict=True)
    ]
    return tuple(sorted(found, key=lambda row: _rank(row, order)))


def cost_of(row: Row, order: Order) -> float | None:
    """What the points are ordered by."""
    if order == "tokens":
        return row.tokens
    return None if row.took is None else row.took.total.p95_ms


def assumed_worth(row: Row) -> Worth | None:
    """More visual tokens are assumed to be worth more, then more of a larger image, then slots."""
    count = row.count
    if count is None:
        return None
    return (
        float(count.visual_tokens_kept),
        float(count.visual_tokens),
        float(count.occupied_slots),
    )


def _measured_worth(row: Row) -> Worth | None:
    return None if row.quality is None else (row.quality,)


def _rank(row: Row, order: Order) -> tuple[float, float, str]:
    cost, quality = cost_of(row, order), row.quality
    return (
        float("inf") if cost is None else cost,
        0.0 if quality is None else -quality,
        str(row.point),
    )
