"""Choosing what a request may spend, so that its budget is kept at the highest quality that fits.

Among the points whose predicted p99 fits, the fastest that cannot be told apart from the best, nor
from any other as worse, and than which no faster one was measured better. So more time never leads
to a point that was measured worse:

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
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from tightrope.arrays import Floats
from tightrope.budget import Budget, in_words
from tightrope.errors import BudgetUnreachable, InputError, ProfileError
from tightrope.latency import SourceImage, Stages
from tightrope.latency_file import LatencyRecord, make_one, read_latency
from tightrope.live_file import live_file, read_requests
from tightrope.paired import beats, indistinguishable
from tightrope.point import OperatingPoint
from tightrope.quality_file import MeasuredPoint, Quality, find_quality
from tightrope.runtime.candidates import candidate_of, candidates_of
from tightrope.runtime.compared import Compared, compared
from tightrope.runtime.heat import Choices, Cooled
from tightrope.runtime.key import latency_key
from tightrope.runtime.lengths import Lengths
from tightrope.runtime.marks import UNCUT, Beginnings
from tightrope.runtime.pace import REMEMBERED, Pace
from tightrope.runtime.plan import Expected, HeatPlan, Plan
from tightrope.runtime.times import Times, TimeTable
from tightrope.runtime.waiting import IDLE, Load

if TYPE_CHECKING:
    from tightrope.runtime.loaded import Loaded

SETTLED = 0.05
"""Requests of equal budgets that follow each other change to a slower point only with so much of
the deadline to spare, and to a faster one that is as good only if it saves as much."""

CHOSEN_BY = 99
"""Percentile of a point's time by which it is chosen."""
ADMITTED_BY = 90
"""And by which the fastest is taken on an idle device where no point is chosen."""
OUTDATED_S = 0.5
"""So long after the last request, nothing is refused by what was learnt of the machine's pace."""
OWN_POINTS = 32
"""Points that callers chose themselves and that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a plan is made for."""

    budget: Budget
    token_ids: tuple[int, ...]
    """The prompt, images as one token each."""
    images: tuple[SourceImage, ...]
    max_tokens: int
    rows: int = 1
    """Answers that are decoded together."""
    thinking: bool | None = None
    point: OperatingPoint | None = None
    """The caller's own choice."""
    beginnings: Beginnings = UNCUT
    """Of the prompt, and what is kept of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A plan, and what its guard goes by."""

    plan: Plan
    token_ms: float
    """Of one step, at the present pace."""
    call_ms: float
    """Of the longest call, in 99 of 100 requests: so long nobody else has the device."""
    answer_tokens: int
    """That an answer behind a thought takes."""


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What each candidate takes at the pace of the latency file, [P] each."""

    times: Times
    ttft: Floats
    """Milliseconds."""
    total: Floats
    joules: Floats
    """Not a number where nobody measured any."""


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
        self._beats = beats([entry.measured for entry in self._all])
        prompts = {} if quality is None else quality.prompts
        lengths = Lengths(self._all, prompts)
        self._table = TimeTable(loaded, model, self._all, lengths, record.power)
        self._clock = loaded.clock
        self._forget()
        self._alike = lru_cache(maxsize=1024)(self._as_good)
        self._last: tuple[Budget, int] | None = None
        self._choosing = threading.Lock()
        """A new table takes milliseconds, for which who is done need not wait."""
        self._lock = threading.Lock()
        """Of the pace, inside the other where both are held."""
        self.warm = False
        """Whether every graph was called once."""
        self.warming = threading.Lock()
        """Held meanwhile: who asks then waits before its clock starts."""

    def _forget(self) -> None:
        """The machine's pace is what the latency file says."""
        self._ttft_pace, self._total_pace = Pace(self.model.ttft), Pace(self.model.total)
        self._first_as_measured = self._ttft_pace.factor(ADMITTED_BY)
        self._as_measured = self._total_pace.factor(ADMITTED_BY)
        self._learnt = -np.inf  # when, in seconds

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
            allowed, fitted = self._allowed(asked), self._times(asked)
            with self._lock:
                try:
                    return self._choose(asked, load, allowed, fitted)
                except BudgetUnreachable:
                    # Who is refused teaches nothing: who was slow would be so for ever.
                    idle = self._clock() - self._learnt
                    if load.busy_ms > 0 or not OUTDATED_S <= idle < np.inf:
                        raise
                    self._forget()
                    return self._choose(asked, load, allowed, fitted)

    def _choose(self, asked: Asked, load: Load, allowed: Choices, fitted: _Fitted) -> Chosen:
        waiting, heat = load.waiting_ms, None
        times, ttft, total = fitted.times, fitted.ttft, fitted.total
        allowed = _holding(allowed, np.isfinite(total), len(asked.token_ids))
        fits = allowed & self._fits(asked.budget, fitted, load, CHOSEN_BY)
        barely = allowed & self._fits(asked.budget, fitted, load, _admitted_by(load))
        best_effort = not barely.any()
        if fits.any():
            cooled = self._cooled(fits, fitted)
            cool = fits if cooled is None else cooled.choices
            fair = self._fair(asked.budget, cool, total, load)
            place, alike = self._pick(asked.budget, fair, total, waiting)
            heat = None if cooled is None else self._heat_plan(cooled, fits, total, place)
        elif barely.any():
            place, alike = int(np.where(barely, total, np.inf).argmin()), 1
        elif asked.budget.if_unreachable == "best_effort" and allowed.any():
            place, alike = int(np.where(allowed, total, np.inf).argmin()), 1
        else:
            raise self._unreachable(asked, load, allowed, fitted)
        entry, token_ms = self._all[place], float(times.token[place]) * asked.rows
        return Chosen(
            plan=Plan(
                point=entry.point,
                quality=entry.quality,
                quality_source="assumed" if entry.quality is None else "measured",
                task=None if self._quality is None else self._quality.key.task_name,
                completion_tokens=times.completion_tokens[place],
                cached_tokens=times.cached_tokens[place],
                ttft=_expected(self._ttft_pace, float(ttft[place]), waiting),
                total=_expected(self._total_pace, float(total[place]), waiting),
                waiting_ms=waiting,
                speed=self._total_pace.level,
                fitting=int(fits.sum()),
                alike=alike,
                points=int(allowed.sum()),
                best_effort=best_effort,
                energy_j=None if self._power is None else float(fitted.joules[place]),
                heat=heat,
            ),
            token_ms=token_ms * self._total_pace.level,
            call_ms=self._total_pace.factor(CHOSEN_BY) * max(float(times.call[place]), token_ms),
            answer_tokens=min(asked.max_tokens, entry.answer_tokens),
        )

    def record(self, ttft_ms: float, total_ms: float, fitted: Stages) -> None:
        """Learn the pace from a request; fitted: the model's times for what it did."""
        with self._lock:
            self._learnt = self._clock()
            self._ttft_pace.record(ttft_ms / fitted.ttft_ms)
            self._total_pace.record(total_ms / fitted.total_ms)
        if self._loaded.heat is not None:
            self._loaded.heat.done()

    def resume(self, earlier: Sequence[Compared]) -> None:
        """Go on from what requests of earlier processes took, the oldest first."""
        if earlier:
            with self._lock:
                self._ttft_pace.resume([(done.age_s, done.ttft_ratio) for done in earlier])
                self._total_pace.resume([(done.age_s, done.total_ratio) for done in earlier])
                self._learnt = self._clock() - earlier[-1].age_s

    def takes_s(self, fitted: Stages, rows: int) -> tuple[float, float]:
        """Seconds at the present pace, in one of two cases and in 99 of 100."""
        with self._lock:
            usual, late = (self._total_pace.factor(percent) for percent in (50, 99))
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

    def _times(self, asked: Asked) -> _Fitted:
        table, images, rows = self._table, asked.images, asked.rows
        times = table.times(asked.token_ids, images, asked.max_tokens, asked.beginnings)
        ttft = times.ttft + table.sources_ms(images)
        return _Fitted(
            times=times,
            ttft=ttft,
            total=ttft + times.decode * rows,
            joules=times.first_j + table.sources_j(images) + times.decode_j * rows,
        )

    def _fits(self, budget: Budget, fitted: _Fitted, load: Load, percent: float) -> Choices:
        """Points at which so many of a hundred requests keep the limits and leave others theirs."""
        late, waiting = self._total_pace.factor(percent) * fitted.total, load.waiting_ms
        fits: Choices = late <= load.room_ms
        if budget.deadline_ms is not None:
            fits &= late + waiting <= budget.deadline_ms
        if budget.first_token_ms is not None:
            fits &= self._ttft_pace.factor(percent) * fitted.ttft + waiting <= budget.first_token_ms
        if budget.energy_j is not None and self._power is not None:
            fits &= (1 + self._power.error_percent / 100) * fitted.joules <= budget.energy_j
        return fits

    def _fits_as_measured(self, budget: Budget, ttft: Floats, total: Floats) -> Choices:
        """Points that an idle machine, as fast as when it was measured, would be in time at."""
        fits: Choices = self._as_measured * total <= (budget.deadline_ms or np.inf)
        return fits & (self._first_as_measured * ttft <= (budget.first_token_ms or np.inf))

    def _cooled(self, fits: Choices, fitted: _Fitted) -> Cooled | None:
        """Of the points that fit, those that keep a ceiling over heat; None where there is none."""
        heat = self._loaded.heat
        return None if heat is None else heat.cool(fits, fitted.total, fitted.joules, self._power)

    def _heat_plan(self, cooled: Cooled, fits: Choices, total: Floats, place: int) -> HeatPlan:
        """What the ceiling made of the choice, and its price."""
        quality, freely = self._all[place].quality, place
        if cooled.left_out:
            freely = self._fastest(self._alike(fits.tobytes()), fits, total)
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
        fair = fits & (self._total_pace.factor(CHOSEN_BY) * total <= share)
        if not fair.any():
            fair[int(np.where(fits, total, np.inf).argmin())] = True
        return fair

    def _pick(
        self, budget: Budget, fits: Choices, total: Floats, waiting: float
    ) -> tuple[int, int]:
        """The candidate's place, and how many were as good."""
        last = self._last[1] if self._last is not None and self._last[0] == budget else None
        if last is not None and fits[last]:
            tight = self._total_pace.factor(CHOSEN_BY) * total * (1 + SETTLED) + waiting
            climbs = total > total[last]
            fits = fits & ~(climbs & (tight > (budget.deadline_ms or np.inf)))
        alike = self._alike(fits.tobytes())
        place = self._fastest(alike, fits, total)
        if last in alike and total[last] * (1 - SETTLED) <= total[place]:
            place = int(last)
        self._last = (budget, place)
        return place, len(alike)

    def _fastest(self, alike: tuple[int, ...], fits: Choices, total: Floats) -> int:
        """Of the places `alike`, the fastest than which no faster one that fits is better."""
        most = -1.0
        for place in np.argsort(np.where(fits, total, np.inf), kind="stable")[: fits.sum()]:
            quality = self._all[place].quality or 0.0
            if quality >= most and place in alike:
                return int(place)
            most = max(most, quality)
        return min(alike, key=lambda number: float(total[number]))

    def _as_good(self, fits: bytes) -> tuple[int, ...]:
        """Of the candidates that fit, the places of the best and of those as good."""
        places = np.flatnonzero(np.frombuffer(fits, np.bool_)).tolist()
        if self._quality is None or len(places) == 1:
            return (places[0],)  # they stand in the order that is assumed
        points = [self._all[place].measured for place in places]
        best, *others = (measured.point for measured in indistinguishable(points))
        beaten = {self._all[place].point for place in places if self._beats[places, place].any()}
        good = {best}.union(others) - (beaten - {best})
        return tuple(place for place in places if self._all[place].point in good)

    def _unreachable(
        self, asked: Asked, load: Load, allowed: Choices, fitted: _Fitted
    ) -> BudgetUnreachable:
        """Why, and what could be reached."""
        if not allowed.any():
            best = max((entry.quality or 0.0 for entry in self._all), default=0.0)
            return BudgetUnreachable(
                f"no point has {in_words(asked.budget)} for this prompt; the best measured quality "
                f"is {best:.3f}"
            )
        times, ttft, total = fitted.times, fitted.ttft, fitted.total
        place = int(np.where(allowed, total, np.inf).argmin())
        percent = _admitted_by(load)
        late = self._total_pace.factor(percent) * float(total[place]) + load.waiting_ms
        first = self._ttft_pace.factor(percent) * float(ttft[place]) + load.waiting_ms
        said = (
            f"{in_words(asked.budget)} cannot be met: the fastest of {int(allowed.sum())} points "
            f"takes {late:.0f} ms for {times.completion_tokens[place]} tokens, the first after "
            f"{first:.0f} ms, in {percent} of 100 requests"
        )
        if asked.budget.energy_j is not None:
            said += f"; none takes less than {float(fitted.joules[allowed].min()):.2f} J"
        if (longest := self._longest(asked, allowed, load)) > 0:
            said += f"; max_tokens of {longest} could be met"
        retry_ms, slowed = None, False
        if (allowed & self._fits(asked.budget, fitted, IDLE, ADMITTED_BY)).any():
            said += "; other requests are in its way"
            retry_ms = load.busy_ms
        elif (allowed & self._fits_as_measured(asked.budget, ttft, total)).any():
            said += "; it could be if the machine were as fast as when it was measured"
            slowed = True
        return BudgetUnreachable(said, fastest_ms=late, retry_ms=retry_ms, slowed=slowed)

    def _longest(self, asked: Asked, allowed: Choices, load: Load) -> int:
        """The largest `max_tokens` below the one asked for that some point meets; 0: none is."""
        met, missed, percent = 0, asked.max_tokens, _admitted_by(load)
        while missed - met > 1:
            middle = (met + missed) // 2
            fitted = self._times(replace(asked, max_tokens=middle))
            if (allowed & self._fits(asked.budget, fitted, load, percent)).any():
                met = middle
            else:
                missed = middle
        return met


def planner_of(loaded: Loaded, task: str | None) -> Planner:
    """The planner of a bundle by a task's questions, opened once.

    Raises ProfileError where no latency was measured here, and for a task that is unknown.
    """
    planner: Planner | None = loaded.planners.get(task)
    if planner is None:
        record = read_latency(loaded.bundle, latency_key(loaded.bundle, loaded.backend))
        quality = find_quality(loaded.bundle, task)
        name = None if quality is None else quality.key.task_name
        # By its name and as the only one it is the same: both learn one pace.
        planner = loaded.planners.setdefault(name, _begun(loaded, record, quality))
        loaded.planners[task] = planner
    return planner


def _begun(loaded: Loaded, record: LatencyRecord, quality: Quality | None) -> Planner:
    """A planner that knows what requests took here lately."""
    heat = loaded.heat
    if heat is not None and heat.ceiling.max_watts is not None and record.power is None:
        raise ProfileError(
            f"max_watts is {heat.ceiling.max_watts:g}, but nobody measured what requests draw: "
            f"{make_one(loaded.bundle)} does it, where a sensor tells it"
        )
    planner = Planner(loaded, record, quality)
    if loaded.live:
        try:
            entries = read_requests(live_file(loaded.bundle), record.key, REMEMBERED)
        except ProfileError as error:  # it plans by the latency file alone
            loaded.say(str(error))
        else:
            planner.resume(compared(loaded, record.model, entries)[0])
    return planner


def _admitted_by(load: Load) -> int:
    """The percentile by which the fastest is taken: others pay for what takes longer."""
    return ADMITTED_BY if load.busy_ms == 0 else CHOSEN_BY


def _holding(allowed: Choices, holds: Choices, num_ids: int) -> Choices:
    """Of the allowed points, those whose slots hold the prompt."""
    if allowed.any() and not (allowed & holds).any():
        raise InputError(
            f"the slots cannot hold the prompt of {num_ids} tokens and its images at any of "
            f"{int(allowed.sum())} points; shorten it, set kv_budget, or export with more --slots"
        )
    return allowed & holds


def _expected(pace: Pace, fitted_ms: float, waiting: float) -> Expected:
    p50, p95, p99 = (pace.factor(percent) * fitted_ms + waiting for percent in (50, 95, 99))
    return Expected(p50_ms=p50, p95_ms=p95, p99_ms=p99)
