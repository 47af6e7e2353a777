"""What a report shows, gathered: the frontier, what the planner takes, and where both come from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tightrope.bundle import Manifest
from tightrope.errors import ProfileError
from tightrope.latency_file import LatencyRecord, missing_latency
from tightrope.point import OperatingPoint
from tightrope.profiles.frontier.frontier import Frontier, Row, measure_quality
from tightrope.profiles.frontier.join import joined, read_sources
from tightrope.profiles.frontier.plans import DeadlinePlan, Deadlines
from tightrope.profiles.frontier.typical import Typical
from tightrope.profiles.latency.measured import PointsRecord
from tightrope.profiles.task.tally import Tally, tallies
from tightrope.quality_file import Quality

if TYPE_CHECKING:
    from tightrope.runtime.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a page is made of."""

    frontier: Frontier
    quality: Quality
    latency: LatencyRecord
    runs: PointsRecord | None
    """What was measured from end to end; None: all times are predicted."""
    plans: tuple[DeadlinePlan, ...]
    """By ascending deadline."""
    admitted_ms: float
    """Requests with a shorter deadline are refused."""
    needed_ms: dict[OperatingPoint, float]
    """What the planner counts on at each point that it may choose."""
    manifest: Manifest
    made: str
    """ISO 8601, UTC."""

    @property
    def numbers(self) -> dict[OperatingPoint, int]:
        """Points are called by these: 1 takes least time."""
        return {row.point: number for number, row in enumerate(self.frontier.rows, start=1)}

    @property
    def best(self) -> tuple[Row, ...]:
        """The points of the frontier, the cheapest first."""
        return tuple(row for row in self.frontier.rows if row.on_frontier)

    def by_type(self, row: Row) -> dict[str, Tally]:
        """Its quality by type of question; empty where the file does not say the types."""
        if row.asked is None or not self.quality.types:
            return {}
        outcomes = row.asked.outcomes
        types = [self.quality.types.get(outcome.question) for outcome in outcomes]
        return tallies(types, [outcome.score for outcome in outcomes])

    def types_by_loss(self) -> list[str]:
        """Types of question, first those that lose most from the best point to the cheapest."""
        best = self.best
        if not best:
            return []
        cheapest, dearest = self.by_type(best[0]), self.by_type(best[-1])

        def loss(name: str) -> tuple[float, str]:
            return (_accuracy(cheapest, name) - _accuracy(dearest, name), name)

        return sorted({*cheapest, *dearest}, key=loss)


def make_report(model: Model, request: Typical, *, task: str | None = None) -> Report:
    """All that a report on `model` on this machine shows.

    task: as of `make_frontier`. Raises ProfileError where quality or latency is missing, with the
    command that measures it, and as `make_frontier`; InputError for a request that no slots hold.
    """
    sources = read_sources(model, task)
    if sources.quality is None:
        raise ProfileError(
            f"no quality was measured of {model.bundle.path}: "
            f"{measure_quality(str(model.bundle.path))}"
        )
    if sources.latency is None:
        raise ProfileError(missing_latency(model.bundle, sources.key))
    deadlines = Deadlines(model, request, sources.latency, sources.quality)
    return Report(
        frontier=joined(model, request, sources),
        quality=sources.quality,
        latency=sources.latency,
        runs=sources.points,
        plans=tuple(deadlines.plans()),
        admitted_ms=deadlines.admitted_ms,
        needed_ms=deadlines.needed_ms,
        manifest=model.bundle.manifest,
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _accuracy(counts: dict[str, Tally], name: str) -> float:
    found = counts.get(name)
    return 0.0 if found is None else found.accuracy or 0.0
