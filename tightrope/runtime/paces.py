"""What requests take now, held against the limits of a budget.

time = fitted time · pace + waiting
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Floats
from tightrope.budget import Budget
from tightrope.latency import LatencyModel, Stages
from tightrope.power import PowerModel
from tightrope.runtime.compared import Compared
from tightrope.runtime.heat import Choices
from tightrope.runtime.pace import Pace
from tightrope.runtime.plan import ADMITTED_BY, CHOSEN_BY, Expected
from tightrope.runtime.times import Times
from tightrope.runtime.waiting import Load


@dataclass(frozen=True, slots=True)
class Fitted:
    """What each candidate takes at the pace of the latency file, [P] each."""

    times: Times
    ttft: Floats
    """Milliseconds."""
    total: Floats
    joules: Floats
    """Not a number where nobody measured any."""


class Paces:
    """The paces to the first token and to the last, and what they let points keep."""

    def __init__(self, model: LatencyModel, power: PowerModel | None) -> None:
        self._model, self._power = model, power
        self.ttft, self.total = Pace(model.ttft), Pace(model.total)
        self._as_measured = self.total.factor(ADMITTED_BY)
        self._first_as_measured = self.ttft.factor(ADMITTED_BY)
        self.learnt = -np.inf
        """When, in seconds of the clock."""

    def forget(self) -> None:
        """The pace is what the latency file says, until the next request tells it."""
        self.ttft = Pace(self._model.ttft, unsure=True)
        self.total = Pace(self._model.total, unsure=True)
        self.learnt = -np.inf

    def record(self, ttft_ms: float, total_ms: float, fitted: Stages, now: float) -> None:
        """Learn from a request; fitted: the model's times for what it did."""
        self.learnt = now
        self.ttft.record(ttft_ms / fitted.ttft_ms)
        self.total.record(total_ms / fitted.total_ms)

    def resume(self, earlier: Sequence[Compared], now: float) -> None:
        """Go on from what requests of earlier processes took, the oldest first."""
        self.ttft.resume([(done.age_s, done.ttft_ratio) for done in earlier])
        self.total.resume([(done.age_s, done.total_ratio) for done in earlier])
        self.learnt = now - earlier[-1].age_s

    def fits(self, budget: Budget, fitted: Fitted, load: Load, percent: float) -> Choices:
        """Points at which so many of a hundred requests keep the limits and leave others theirs."""
        late, waiting = self.total.factor(percent) * fitted.total, load.waiting_ms
        fits: Choices = late <= load.room_ms
        if budget.deadline_ms is not None:
            fits &= late + waiting <= budget.deadline_ms
        if budget.first_token_ms is not None:
            fits &= self.ttft.factor(percent) * fitted.ttft + waiting <= budget.first_token_ms
        if budget.energy_j is not None and self._power is not None:
            fits &= (1 + self._power.error_percent / 100) * fitted.joules <= budget.energy_j
        return fits

    def fits_as_measured(self, budget: Budget, fitted: Fitted) -> Choices:
        """Points that an idle machine, as fast as when it was measured, would be in time at."""
        fits: Choices = self._as_measured * fitted.total <= (budget.deadline_ms or np.inf)
        return fits & (self._first_as_measured * fitted.ttft <= (budget.first_token_ms or np.inf))


def admitted_by(load: Load) -> int:
    """The percentile by which the fastest is taken: others pay for what takes longer."""
    return ADMITTED_BY if load.busy_ms == 0 else CHOSEN_BY


def expected(pace: Pace, fitted_ms: float, waiting_ms: float) -> Expected:
    """What a request takes that waits so long before."""
    p50, p95, p99 = (pace.factor(percent) * fitted_ms + waiting_ms for percent in (50, 95, 99))
    return Expected(p50_ms=p50, p95_ms=p95, p99_ms=p99)
