"""Choosing what a request may spend, so that its budget is kept at the highest quality that fits.

Among the points whose predicted p99 fits, the fastest that cannot be told apart from the best. What
a point takes is a sum that is known for each length of prompt; only the decoding of the images that
were handed in and the machine's present pace are added for every request:

    p99 = (table[prompt tokens, images, answer tokens] + decoding of the sources) · pace + waiting
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from tightrope.arrays import Floats
from tightrope.budget import Budget
from tightrope.errors import BudgetUnreachable, InputError, ProfileError
from tightrope.latency import LatencyModel, SourceImage
from tightrope.paired import indistinguishable, mean_score
from tightrope.point import OperatingPoint
from tightrope.quality_file import MeasuredPoint, Quality
from tightrope.runtime.assumed import assumed_points
from tightrope.runtime.pace import Pace
from tightrope.runtime.plan import Expected, Plan
from tightrope.runtime.settings import resolve
from tightrope.runtime.workload import work_of

if TYPE_CHECKING:
    from tightrope.runtime.loaded import Loaded
    from tightrope.runtime.stopwatch import Clock

LONGEST_ANSWER = 99
"""Percentile of a task's answers that is counted on."""
SETTLED = 0.05
"""A stream of equal budgets changes to a slower point only with so much to spare, and to a faster
one that is as good only where it saves as much: it does not go back and forth."""
STEPS = ((128, 4), (512, 16), (4096, 64))
"""Up to so many tokens, a prompt counts as a multiple of that: few lengths are tabled."""
ANSWER_TOKENS = 8
"""Held back behind a thought where no answers were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A point that may be chosen."""

    measured: MeasuredPoint
    """Without outcomes where quality is assumed."""
    most_tokens: int | None
    """Of 99 in 100 answers; None where none were measured."""
    answer_tokens: int
    """Of 99 in 100, behind their thought."""

    @property
    def point(self) -> OperatingPoint:
        return self.measured.point

    def completion_tokens(self, max_tokens: int) -> int:
        """That are counted on."""
        return max_tokens if self.most_tokens is None else min(max_tokens, self.most_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Fitted milliseconds of each candidate, without decoding of images; infinite if none fits."""

    ttft: Floats
    total: Floats
    token: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a plan is made for."""

    budget: Budget
    num_ids: int
    images: tuple[SourceImage, ...]
    max_tokens: int
    rows: int = 1
    thinking: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A plan, and what its guard goes by."""

    plan: Plan
    token_ms: float
    answer_tokens: int
    fitted_ms: float
    """Of the whole request at the machine's usual pace."""


class Planner:
    """Plans for one bundle on one machine; any thread may ask."""

    def __init__(self, loaded: Loaded, model: LatencyModel, quality: Quality | None) -> None:
        self._loaded, self._model, self._quality = loaded, model, quality
        self.candidates = _candidates(loaded, quality)
        self.ttft_pace, self.total_pace = Pace(model.ttft), Pace(model.total)
        self._table = lru_cache(maxsize=256)(self._tabled)
        self._alike = lru_cache(maxsize=1024)(self._told_apart)
        self._last: tuple[Budget, int] | None = None
        self._lock = threading.Lock()
        self.queue = Queue(loaded.clock)

    def choose(self, asked: Asked, elapsed_ms: float) -> Chosen:
        """The point for a request that was submitted `elapsed_ms` ago.

        Raises BudgetUnreachable where none meets the budget, with what the fastest would take,
        unless the budget asks for the best effort, and ProfileError for limits that need figures
        which nobody measured.
        """
        budget = asked.budget
        self._check(budget)
        waiting = elapsed_ms + self.queue.waiting_ms()
        table = self._table(_rounded(asked.num_ids), len(asked.images), asked.max_tokens)
        source = self._sources_ms(asked.images)
        ttft = table.ttft + source
        total = ttft + (table.total - table.ttft) * asked.rows
        with self._lock:
            first, last = self.ttft_pace.factor(99), self.total_pace.factor(99)
            late = last * total + waiting
            fits = self._allowed(asked) & np.isfinite(total)
            possible = fits.copy()
            if budget.deadline_ms is not None:
                fits &= late <= budget.deadline_ms
            if budget.first_token_ms is not None:
                fits &= first * ttft + waiting <= budget.first_token_ms
            best_effort = not fits.any()
            if best_effort:
                if budget.if_unreachable == "refuse" or not possible.any():
                    raise self._unreachable(asked, ttft, total, waiting, possible)
                place, alike = int(np.where(possible, total, np.inf).argmin()), 1
            else:
                place, alike = self._pick(budget, fits, total, late)
            plan = self._plan(asked, place, ttft, total, waiting)
        chosen = self.candidates[place]
        return Chosen(
            plan=replace(plan, fitting=int(fits.sum()), alike=alike, best_effort=best_effort),
            token_ms=float(table.token[place]) * self.total_pace.level,
            answer_tokens=min(asked.max_tokens, chosen.answer_tokens),
            fitted_ms=float(total[place]),
        )

    def record(self, ttft_ms: float, total_ms: float, fitted: tuple[float, float]) -> None:
        """Learn from a request; fitted: the model's times for what it really did."""
        with self._lock:
            self.ttft_pace.record(ttft_ms / fitted[0])
            self.total_pace.record(total_ms / fitted[1])

    def _pick(
        self, budget: Budget, fits: np.ndarray, total: Floats, late: Floats
    ) -> tuple[int, int]:
        """The candidate's place, and how many were as good."""
        last = self._last[1] if self._last is not None and self._last[0] == budget else None
        if last is not None and fits[last] and budget.deadline_ms is not None:
            slower = total > total[last]
            fits = fits & ~(slower & (late * (1 + SETTLED) > budget.deadline_ms))
        alike = self._alike(fits.tobytes())
        place = min(alike, key=lambda number: float(total[number]))
        if last in alike and total[last] * (1 - SETTLED) <= total[place]:
            place = last
        self._last = (budget, place)
        return place, len(alike)

    def _told_apart(self, fits: bytes) -> tuple[int, ...]:
        """Of the candidates that fit, the places of the best and of what is as good."""
        places = np.flatnonzero(np.frombuffer(fits, bool))
        if self._quality is None:
            return (int(places[0]),)  # in the order that is assumed
        points = [self.candidates[place].measured for place in places]
        good = {id(measured) for measured in indistinguishable(points)}
        return tuple(int(place) for place in places if id(self.candidates[place].measured) in good)

    def _allowed(self, asked: Asked) -> np.ndarray:
        """Candidates that are as good as the budget wants, and think as the request says."""
        least, thinking = asked.budget.min_quality, asked.thinking
        return np.array(
            [
                (least is None or (mean_of(entry) or 0.0) >= least)
                and (thinking is None or (entry.point.thinking_tokens != 0) == thinking)
                for entry in self.candidates
            ]
        )
