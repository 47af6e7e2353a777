"""Which of the points that fit is taken: the fastest that cannot be told apart from the best.

Nor may it be told from any other as worse, nor any faster one have been measured better: so more
time never leads to a point that was measured worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from tightrope.arrays import Floats
from tightrope.budget import Budget
from tightrope.paired import beats, indistinguishable
from tightrope.runtime.candidates import Candidate
from tightrope.runtime.heat import Choices

SETTLED = 0.05
"""Requests of equal budgets that follow each other change to a slower point only with so much of
the deadline to spare, and to a faster one that is as good only if it saves as much."""


class Preference:
    """The order of a planner's candidates, and what it took last."""

    def __init__(self, candidates: Sequence[Candidate], measured: bool) -> None:
        """candidates: those of the planner, which may grow behind. measured: their quality is."""
        self._candidates, self._measured = candidates, measured
        self._beats = beats([entry.measured for entry in candidates])
        self._alike = lru_cache(maxsize=1024)(self._as_good)
        self._last: tuple[Budget, int] | None = None

    def pick(self, budget: Budget, fits: Choices, total: Floats, late: Floats) -> tuple[int, int]:
        """The candidate's place, and how many were as good.

        total: milliseconds of each. late: when so many of them are done as have to be in time, with
        what is to be spared by one that is slower than the last.
        """
        last = self._last[1] if self._last is not None and self._last[0] == budget else None
        if last is not None and fits[last]:
            climbs = total > total[last]
            fits = fits & ~(climbs & (late > (budget.deadline_ms or np.inf)))
        alike = self._alike(fits.tobytes())
        place = self._fastest(alike, fits, total)
        if last in alike and total[last] * (1 - SETTLED) <= total[place]:
            place = int(last)
        self._last = (budget, place)
        return place, len(alike)

    def best(self, fits: Choices, total: Floats) -> int:
        """The candidate's place, whatever was taken before."""
        return self._fastest(self._alike(fits.tobytes()), fits, total)

    def _fastest(self, alike: tuple[int, ...], fits: Choices, total: Floats) -> int:
        """Of the places `alike`, the fastest than which no faster one that fits is better."""
        most = -1.0
        for place in np.argsort(np.where(fits, total, np.inf), kind="stable")[: fits.sum()]:
            quality = self._candidates[place].quality or 0.0
            if quality >= most and place in alike:
                return int(place)
            most = max(most, quality)
        return min(alike, key=lambda number: float(total[number]))

    def _as_good(self, fits: bytes) -> tuple[int, ...]:
        """Of the candidates that fit, the places of the best and of those as good."""
        places = np.flatnonzero(np.frombuffer(fits, np.bool_)).tolist()
        if not self._measured or len(places) == 1:
            return (places[0],)  # they stand in the order that is assumed
        points = [self._candidates[place].measured for place in places]
        best, *others = (measured.point for measured in indistinguishable(points))
        beaten = {self._candidates[place].point for place in places if self._lost(place, places)}
        good = {best}.union(others) - (beaten - {best})
        return tuple(place for place in places if self._candidates[place].point in good)

    def _lost(self, place: int, places: Sequence[int]) -> bool:
        """Whether any of the candidates at `places` is told to be better."""
        return bool(self._beats[places, place].any())
