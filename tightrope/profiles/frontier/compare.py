"""Sides held against the first of them: point by point, and by what their planners take.

Where both were asked the same questions, answers are compared question by question. Quality does
not depend on the machine, so two machines of one bundle differ by what fits a deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tightrope.errors import ProfileError
from tightrope.paired import Comparison, compare, interval95, mean_score
from tightrope.point import OperatingPoint
from tightrope.profiles.frontier.sides import Side
from tightrope.quality_file import MeasuredPoint
from tightrope.schemas import versioned

Verdict = Literal[
    "better", "worse", "as good", "alone", "not in time", "neither", "other questions"
]
"""Of a side beside the first: told apart by the questions, or not; it alone keeps the deadline, or
the first alone does, or none; or their answers cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """A point on one side."""

    point: OperatingPoint
    quality: float
    interval: tuple[float, float]
    questions: int
    p99_ms: float | None
    """What the planner counts on; None where it does not choose the point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamePoint:
    """A point that was measured on the first side and on another one."""

    point: OperatingPoint
    sides: tuple[Worth | None, ...]
    against_first: tuple[Comparison | None, ...]
    """None for the first itself, where the questions are others, and where the answers are the very
    same: one bundle on two machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Deadlines for which all sides take the same."""

    from_ms: float
    to_ms: float | None
    """The next range begins there; None: this is the last."""
    sides: tuple[Worth | None, ...]
    """What is taken; None where no point is in time."""
    against_first: tuple[Comparison | None, ...]
    verdicts: tuple[Verdict | None, ...]
    """None for the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """All that was found."""

    sides: tuple[Side, ...]
    points: tuple[SamePoint, ...]
    deadlines: tuple[Range, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What a side differs in from others: "int4.bundle, int4"."""
        about = [side.about for side in self.sides]
        differ = [name for name in about[0] if len({each[name] for each in about}) > 1]
        return tuple(", ".join(each[name] for name in differ) or each["bundle"] for each in about)

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be compared, and why."""
        first = self.sides[0]
        reasons = {_why_not(first, side) for side in self.sides[1:]} - {None}
        return tuple(sorted(reason for reason in reasons if reason is not None))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with a schema number."""
        return versioned(
            "comparison",
            {
                "sides": [
                    {"name": name, **side.to_dict()}
                    for name, side in zip(self.names, self.sides, strict=True)
                ],
                "points": [asdict(each) for each in self.points],
                "deadlines": [asdict(each) for each in self.deadlines],
                "notes": list(self.notes),
            },
        )


def compare_sides(sides: Sequence[Side]) -> Compared:
    """All `sides`, two or more, beside the first.

    Raises ProfileError where none has anything in common with it.
    """
    first, others = sides[0], sides[1:]
    same = any(_why_not(first, side) is None for side in others)
    if not same and all(side.quality.key.bundle != first.quality.key.bundle for side in others):
        raise ProfileError(
            f"{first.bundle} and the others have nothing in common to compare: "
            f"{_why_not(first, others[0])}; measure both by the same task"
        )
    return Compared(sides=tuple(sides), points=_same_points(sides), deadlines=_ranges(sides))


def _same_points(sides: Sequence[Side]) -> tuple[SamePoint, ...]:
    """In the first side's order; those that another side with the same questions has as well."""
    first, found = sides[0], []
    for measured in first.quality.points:
        point = measured.point
        all_measured = [side.measured(point) for side in sides]
        comparisons = tuple(
            _paired(first, side, measured, theirs)
            for side, theirs in zip(sides, all_measured, strict=True)
        )
        if any(comparisons) or any(_same(first, side) for side in sides[1:]):
            worths = [
                None if each is None else _worth(side, each)
                for side, each in zip(sides, all_measured, strict=True)
            ]
            found.append(SamePoint(point=point, sides=tuple(worths), against_first=comparisons))
    return tuple(found)


def _ranges(sides: Sequence[Side]) -> tuple[Range, ...]:
    """From the first deadline that some side keeps; neighbours that say the same are one."""
    steps = sorted({ms for side in sides for ms in side.deadlines.changes()})
    taken = [tuple(_taken(side, step) for side in sides) for step in steps]
    starts = [place for place, each in enumerate(taken) if not place or each != taken[place - 1]]
    ends = [steps[place] for place in starts[1:]]
    return tuple(
        _range(sides, steps[place], end, taken[place])
        for place, end in zip(starts, [*ends, None], strict=True)
    )


def _range(
    sides: Sequence[Side], from_ms: float, to_ms: float | None, taken: tuple[Worth | None, ...]
) -> Range:
    first, ours = sides[0], taken[0]
    comparisons: list[Comparison | None] = [None]
    verdicts: list[Verdict | None] = [None]
    for side, theirs in zip(sides[1:], taken[1:], strict=True):
        paired, alike = None, False
        if ours is not None and theirs is not None:
            one, other = first.measured(ours.point), side.measured(theirs.point)
            paired = None if one is None else _paired(first, side, one, other)
            alike = _same(first, side) and ours.point == theirs.point
        comparisons.append(paired)
        verdicts.append("as good" if alike else _verdict(ours, theirs, paired))
    return Range(
        from_ms=from_ms,
        to_ms=to_ms,
        sides=taken,
        against_first=tuple(comparisons),
        verdicts=tuple(verdicts),
    )


def _verdict(ours: Worth | None, theirs: Worth | None, paired: Comparison | None) -> Verdict:
    if ours is None or theirs is None:
        return "neither" if ours is theirs else "alone" if ours is None else "not in time"
    if paired is None:
        return "other questions"
    if not paired.told_apart:
        return "as good"
    return "better" if paired.difference > 0 else "worse"


def _paired(
    first: Side, side: Side, ours: MeasuredPoint, theirs: MeasuredPoint | None
) -> Comparison | None:
    """What `side` has more than `first`; None where that cannot be said."""
    if side is first or theirs is None or _why_not(first, side) is not None:
        return None
    if _same(first, side) and ours.point == theirs.point:
        return None
    found = compare(theirs, ours)
    return found if found.shared else None


def _same(first: Side, side: Side) -> bool:
    """Whether both have one quality file, and differ by the machine."""
    return first.quality.key == side.quality.key


def _why_not(first: Side, side: Side) -> str | None:
    """Why the answers of two sides cannot be compared; None where they can."""
    one, other = first.quality.key, side.quality.key
    if one.task != other.task:
        return (
            f"task {other.task_name!r} ({other.task:.12}…) asks other questions than "
            f"{one.task_name!r} ({one.task:.12}…)"
        )
    if one.measure != other.measure or (one.measure == "agreement" and one.bundle != other.bundle):
        return "agreement is with each bundle's own unpruned answers: it compares no two bundles"
    return None


def _taken(side: Side, deadline_ms: float) -> Worth | None:
    plan = side.deadlines.plan(deadline_ms).plan
    measured = None if plan is None else side.measured(plan.point)
    return None if measured is None else _worth(side, measured)


def _worth(side: Side, measured: MeasuredPoint) -> Worth | None:
    quality, n = mean_score(measured), len(measured.outcomes)
    if quality is None:
        return None
    return Worth(
        point=measured.point,
        quality=quality,
        interval=interval95(quality * n, n),
        questions=n,
        p99_ms=side.deadlines.needed_ms.get(measured.point),
    )
