"""Choosing what a request may spend, so that its budget is kept at the highest quality that fits.

Among the points whose predicted p99 fits, the one that is preferred (`preference.py`):

    p99 = (table of the point + decoding of the images that came) · pace + waiting

Where none fits and nobody else wants the device, the fastest is taken if it is in time in nine of
ten requests: whoever has a deadline is served better by such an answer than by none. Else the
request is refused.

A point may take no longer than leaves those behind it in time, and, where others have deadlines
too, takes rather no more of its own than a share.

A table is made once for each length of prompt and answer, the pace is learnt as requests come.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tightrope.arrays import Floats
from tightrope.budget import Budget
from tightrope.errors import BudgetUnreachable, InputError, ProfileError
from tightrope.latency import Stages
from tightrope.latency_file import LatencyRecord, make_one
from tightrope.point import OperatingPoint
from tightrope.quality_file import MeasuredPoint, Quality
from tightrope.runtime.candidates import candidate_of, candidates_of
from tightrope.runtime.compared import Compared
from tightrope.runtime.heat import Choices, Cooled
from tightrope.runtime.lengths import Lengths
from tightrope.runtime.paces import Fitted, Paces, admitted_by, expected
from tightrope.runtime.plan import CHOSEN_BY, Asked, Chosen, HeatPlan, Plan
from tightrope.runtime.preference import SETTLED, Preference
from tightrope.runtime.times import TimeTable
from tightrope.runtime.unreachable import not_good_enough, unreachable
from tightrope.runtime.waiting import IDLE, Load
from tightrope.runtime.works import Works

if TYPE_CHECKING:
    from tightrope.runtime.loaded import Loaded

OUTDATED_S = 0.25
"""So long after the last request, nothing is refused by what was learnt of the machine's pace."""
OWN_POINTS = 32
"""Points that callers chose themselves and that are remembered."""


class Planner:
    """Plans for one bundle on one machine, by one task; any thread may ask."""

    def __init__(self, loaded: Loaded, record: LatencyRecord, quality: Quality | None) -> None:
        """Raises ProfileError for a quality file in which nothing was measured yet."""
        model = record.model
        self._quality, self.model, self._power = quality, model, record.power
        self._loaded = loaded
        self._all = list(candidates_of(loaded.manifest, quality))
        if quality is not None and not self._all:
            raise ProfileError(
                f"no point was measured by task {quality.key.task_name!r} yet; "
                f"`tightrope profile {loaded.bundle.path} --task DIR` does it"
            )
        self._planned = len(self._all)  # behind them stand points that callers chose themselves
        prompts = {} if quality is None else quality.prompts
        lengths = Lengths(self._all, prompts)
        self._table = TimeTable(loaded, model, self._all, lengths, record.power)
        self._preference = Preference(self._all, measured=quality is not None)
        self._clock = loaded.clock
        self.paces = Paces(model, record.power)
        self.works = Works(loaded)
        self._choosing = threading.Lock()
        """A new table takes milliseconds, for which who is done need not wait."""
        self._lock = threading.Lock()
        """Of the pace, inside the other where both are held."""
        self.warm = False
        """Whether every graph was called once."""
        self.warming = threading.Lock()
        """Held meanwhile: who asks then waits before its clock starts."""

    @property
    def points(self) -> list[OperatingPoint]:
        """What is chosen from."""
        return [entry.point for entry in self._all[: self._planned]]

    def choose(self, asked: Asked, load: Load = IDLE) -> Chosen:
        """The plan for a request that meets this load.

        Raises BudgetUnreachable where no point meets the budget, with what the fastest would take,
        unless the budget asks for the best effort; ProfileError for limits that need figures which
        nobody measured; InputError for a prompt that no slots hold.
        """
        with self._choosing:
            allowed, fitted = self._allowed(asked), self._fitted(asked)
            with self._lock:
                try:
                    return self._choose(asked, load, allowed, fitted)
                except BudgetUnreachable as refused:
                    # Who is refused teaches nothing: who was slow would be so for ever.
                    idle = self._clock() - self.paces.learnt
                    outdated = OUTDATED_S <= idle < np.inf
                    if not (refused.slowed and outdated) or load.busy_ms > 0:
                        raise
                    self.paces.forget()
                    return self._choose(asked, load, allowed, fitted, trying=True)

    def _choose(
        self, asked: Asked, load: Load, allowed: Choices, fitted: Fitted, trying: bool = False
    ) -> Chosen:
        """trying: the machine was too slow; by the fastest point it is found out whether it is."""
        heat: HeatPlan | None = None
        budget, paces = asked.budget, self.paces
        allowed = _holding(allowed, np.isfinite(fitted.total), len(asked.token_ids))
        fits = allowed & paces.fits(budget, fitted, load, CHOSEN_BY)
        barely = allowed & paces.fits(budget, fitted, load, admitted_by(load))
        best_effort, alike = not barely.any(), 1
        if fits.any():
            cooled = self._cooled(fits, fitted)
            cool = fits if cooled is None else cooled.choices
            fair = self._fair(budget, cool, fitted.total, load)
            if trying:
                place = int(np.where(fair, fitted.total, np.inf).argmin())
            else:
                place, alike = self._pick(budget, fair, fitted.total, load)
            heat = None if cooled is None else self._heat_plan(cooled, fits, fitted.total, place)
        elif barely.any():
            place = int(np.where(barely, fitted.total, np.inf).argmin())
        elif not allowed.any():
            best = max((entry.quality or 0.0 for entry in self._all), default=0.0)
            raise not_good_enough(asked, best)
        elif budget.if_unreachable == "best_effort":
            place = int(np.where(allowed, fitted.total, np.inf).argmin())
        else:
            raise unreachable(asked, allowed, load, paces, self._fitted)
        entry, times = self._all[place], fitted.times
        token_ms = float(times.token[place]) * asked.rows
        return Chosen(
            plan=Plan(
                point=entry.point,
                quality=entry.quality,
                quality_source="assumed" if entry.quality is None else "measured",
                task=None if self._quality is None else self._quality.key.task_name,
                completion_tokens=times.completion_tokens[place],
                cached_tokens=times.cached_tokens[place],
                ttft=expected(paces.ttft, float(fitted.ttft[place]), load.waiting_ms),
                total=expected(paces.total, float(fitted.total[place]), load.waiting_ms),
                waiting_ms=load.waiting_ms,
                speed=paces.total.level,
                fitting=int(fits.sum()),
                alike=alike,
                points=int(allowed.sum()),
                best_effort=best_effort,
                energy_j=None if self._power is None else float(fitted.joules[place]),
                heat=heat,
            ),
            token_ms=token_ms * paces.total.level,
            call_ms=paces.total.factor(CHOSEN_BY) * max(float(times.call[place]), token_ms),
            answer_tokens=min(asked.max_tokens, entry.answer_tokens),
        )

    def record(self, ttft_ms: float, total_ms: float, fitted: Stages) -> None:
        """Learn the pace from a request; fitted: the model's times for what it did."""
        with self._lock:
            self.paces.record(ttft_ms, total_ms, fitted, self._clock())
        if self._loaded.heat is not None:
            self._loaded.heat.done()

    def resume(self, earlier: Sequence[Compared]) -> None:
        """Go on from what requests of earlier processes took, the oldest first."""
        if earlier:
            with self._lock:
                self.paces.resume(earlier, self._clock())

    def takes_s(self, fitted: Stages, rows: int) -> tuple[float, float]:
        """Seconds at the present pace, in one of two cases and in 99 of 100."""
        with self._lock:
            usual, late = (self.paces.total.factor(percent) for percent in (50, 99))
        fitted_s = (fitted.ttft_ms + rows * fitted.decode_ms) / 1e3
        return usual * fitted_s, late * fitted_s

    def _allowed(self, asked: Asked) -> Choices:
        """Candidates that are good enough, and think as the request says."""
        budget = asked.budget
        if budget.energy_j is not None and self._power is None:
            raise ProfileError(
                f"energy_j is {budget.energy_j}, but no energy was measured here; "
                f"{make_one(self._loaded.bundle)} does it where a sensor tells what the board draws"
            )
        if asked.point is not None:
            allowed = self._only(asked.point)
        else:
            allowed = np.arange(len(self._all)) < self._planned
        if asked.point is None and asked.thinking is not None:
            says = [(entry.point.thinking_tokens != 0) == asked.thinking for entry in self._all]
            # Where no point says so, the prompt does.
            allowed &= np.array(says) if any(says[: self._planned]) else True
        if budget.min_quality is not None:
            if self._quality is None:
                raise ProfileError(
                    f"min_quality is {budget.min_quality}, but no quality was measured of this "
                    "bundle; `tightrope profile BUNDLE --task DIR` does it"
                )
            quality = np.array([entry.quality or 0.0 for entry in self._all])
            allowed &= quality >= budget.min_quality
        return allowed

    def _only(self, point: OperatingPoint) -> Choices:
        """The caller's own point, which may be none of the others."""
        points = [entry.point for entry in self._all]
        if point not in points:
            if len(points) >= self._planned + OWN_POINTS:
                del self._all[self._planned :], points[self._planned :]
            self._all.append(candidate_of(MeasuredPoint(point=point, outcomes=())))
            self._table.forget()
            points.append(point)
        only = np.zeros(len(points), np.bool_)
        only[points.index(point)] = True
        return only

    def _fitted(self, asked: Asked) -> Fitted:
        table, images, rows = self._table, asked.images, asked.rows
        times = table.times(
            asked.token_ids, images, asked.max_tokens, asked.beginnings, asked.begun
        )
        sources_ms = table.sources_ms(images, asked.begun)
        ttft = times.ttft + sources_ms
        return Fitted(
            times=times,
            ttft=ttft,
            total=ttft + times.decode * rows,
            joules=times.first_j + table.sources_j(sources_ms) + times.decode_j * rows,
        )

    def _cooled(self, fits: Choices, fitted: Fitted) -> Cooled | None:
        """Of the points that fit, those that keep a ceiling over heat; None where there is none."""
        heat = self._loaded.heat
        return None if heat is None else heat.cool(fits, fitted.total, fitted.joules, self._power)

    def _heat_plan(self, cooled: Cooled, fits: Choices, total: Floats, place: int) -> HeatPlan:
        """What the ceiling made of the choice, and its price."""
        quality, freely = self._all[place].quality, place
        if cooled.left_out:
            freely = self._preference.best(fits, total)
        return HeatPlan(
            hottest_c=cooled.hottest_c,
            watts=None if cooled.watts is None else float(cooled.watts[place]),
            allowed_watts=cooled.allowed_watts,
            left_out=cooled.left_out,
            price=None if quality is None else (self._all[freely].quality or 0.0) - quality,
        )

    def _fair(self, budget: Budget, fits: Choices, total: Floats, load: Load) -> Choices:
        """Of those that fit, what takes no more than a share of the time that others want too."""
        if load.others == 0 or budget.deadline_ms is None:
            return fits
        share = budget.deadline_ms / (load.others + 1)
        fair = fits & (self.paces.total.factor(CHOSEN_BY) * total <= share)
        if not fair.any():
            fair[int(np.where(fits, total, np.inf).argmin())] = True
        return fair

    def _pick(self, budget: Budget, fits: Choices, total: Floats, load: Load) -> tuple[int, int]:
        """The candidate's place, and how many were as good."""
        late = self.paces.total.factor(CHOSEN_BY) * total * (1 + SETTLED) + load.waiting_ms
        return self._preference.pick(budget, fits, total, late)


def _holding(allowed: Choices, holds: Choices, num_ids: int) -> Choices:
    """Of the allowed points, those whose slots hold the prompt."""
    if allowed.any() and not (allowed & holds).any():
        raise InputError(
            f"the slots cannot hold the prompt of {num_ids} tokens and its images at any of "
            f"{int(allowed.sum())} points; shorten it, set kv_budget, or export with more --slots"
        )
    return allowed & holds
