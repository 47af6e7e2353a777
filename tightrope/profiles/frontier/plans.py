"""What the runtime's planner takes at many deadlines: nothing of its rule is written here again.

The planner is a new one that has learnt nothing: its pace is what the latency file says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tightrope.budget import Budget
from tightrope.errors import BudgetUnreachable, InputError
from tightrope.latency_file import LatencyRecord
from tightrope.point import OperatingPoint
from tightrope.profiles.frontier.typical import Typical
from tightrope.quality_file import Quality
from tightrope.runtime.held import headers_of
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.plan import Asked, Plan
from tightrope.runtime.planner import Planner

if TYPE_CHECKING:
    from tightrope.runtime.model import Model

STEPS = 240
"""Deadlines between the shortest and the longest that make a difference, in equal ratios."""
SPARE = 1.15
"""How far beyond these two the deadlines go."""
DIGITS = 4
"""Of a deadline."""
AT_ONCE, FOR_EVER = 1e-9, math.nextafter(math.inf, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePlan:
    """What is planned for one deadline."""

    deadline_ms: float
    plan: Plan | None
    """None: no point is in time."""


class Deadlines:
    """The planner of a bundle on the machine of `record`, asked the typical request."""

    def __init__(
        self, model: Model, request: Typical, record: LatencyRecord, quality: Quality
    ) -> None:
        """record: of this machine or another. Raises ProfileError as `Planner`."""
        loaded = Loaded(model.bundle, model.backend, time.perf_counter)
        self._planner = Planner(loaded, record, quality)
        self._images = headers_of(request.images, loaded.detail(Budget(deadline_ms=FOR_EVER)))
        self._token_ids = tuple(model.token_ids(request.prompt, len(request.images)))
        self._max_tokens = quality.key.max_tokens
        self.admitted_ms = self._admitted()
        """From this deadline on a request is not refused."""
        self.needed_ms = self._needed()
        """What 99 of 100 requests keep at each point that may be chosen and holds the request."""

    def plan(self, deadline_ms: float) -> DeadlinePlan:
        """What is taken for this deadline."""
        try:
            return DeadlinePlan(deadline_ms=deadline_ms, plan=self._choose(deadline_ms))
        except BudgetUnreachable:
            return DeadlinePlan(deadline_ms=deadline_ms, plan=None)

    def plans(self) -> list[DeadlinePlan]:
        """From a deadline that no point keeps to one that all do, every change among them."""
        return [self.plan(deadline_ms) for deadline_ms in grid(self.changes())]

    def changes(self) -> list[float]:
        """Deadlines from which on another point may be taken, ascending, each rounded up."""
        return sorted({rounded_up(ms) for ms in (self.admitted_ms, *self.needed_ms.values())})

    def _admitted(self) -> float:
        try:
            self._choose(AT_ONCE)
        except BudgetUnreachable as error:
            if error.fastest_ms is not None:
                return error.fastest_ms
        raise AssertionError("some point holds the request, and none takes no time")

    def _needed(self) -> dict[OperatingPoint, float]:
        needed = {}
        for point in self._planner.points:
            try:
                needed[point] = self._choose(FOR_EVER, point).total.p99_ms
            except InputError:  # its slots do not hold the request
                continue
        return needed

    def _choose(self, deadline_ms: float, point: OperatingPoint | None = None) -> Plan:
        asked = Asked(
            budget=Budget(deadline_ms=deadline_ms),
            token_ids=self._token_ids,
            images=self._images,
            max_tokens=self._max_tokens,
            point=point,
        )
        return self._planner.choose(asked).plan


def grid(changes: Sequence[float], steps: int = STEPS) -> list[float]:
    """Ascending deadlines around `changes`, one or more, and these themselves."""
    low, high = min(changes) / SPARE, max(changes) * SPARE
    return sorted({*map(rounded_up, np.geomspace(low, high, steps)), *changes})


def rounded_up(ms: float) -> float:
    """To a few digits, never below."""
    unit = 10.0 ** (math.floor(math.log10(ms)) + 1 - DIGITS)
    whole = math.ceil(ms / unit)
    rounded = float(f"{whole * unit:.{DIGITS}g}")
    return rounded if rounded >= ms else float(f"{(whole + 1) * unit:.{DIGITS}g}")
