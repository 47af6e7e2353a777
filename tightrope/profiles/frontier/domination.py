"""Which points nobody needs: another one costs no more and is worth no less.

https://en.wikipedia.org/wiki/Pareto_front
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Worth = tuple[float, ...]
"""More is better; the first number that differs decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a point costs and is worth; of one with an unknown, None, nothing is said."""

    cost: float | None
    worth: Worth | None


def dominators(candidates: Sequence[Candidate]) -> tuple[int | None, ...]:
    """For each candidate the place of one that dominates it, None where none does.

    One dominates another if it costs no more and is worth no less, and one of both strictly. The
    one named is itself dominated by none; of several the most worthy, then the cheapest.
    """
    above = [
        [place for place, other in enumerate(candidates) if _dominates(other, candidate)]
        for candidate in candidates
    ]

    def rank(place: int) -> tuple[Worth, float, int]:
        found = candidates[place]
        return found.worth or (), -(found.cost or 0.0), -place

    return tuple(
        max((place for place in places if not above[place]), key=rank, default=None)
        for places in above
    )


def _dominates(one: Candidate, other: Candidate) -> bool:
    if one.cost is None or one.worth is None or other.cost is None or other.worth is None:
        return False
    no_worse = one.cost <= other.cost and one.worth >= other.worth
    return no_worse and (one.cost, one.worth) != (other.cost, other.worth)
