"""A ceiling over a board's temperature and power: cheaper points before it throttles.

A board cannot be told to draw less by asking it the same; it draws less if each request costs less
energy. What a point would draw, if requests keep coming as they do, is

    watts = idle + requests a second · (its joules - idle · its seconds)

Of the points that fit a budget those are taken whose watts are allowed:

    --max-watts W   up to W, less by what the last half minute was above it
    --max-temp C    all, as long as the hottest zone is BAND_C below C; from there on less and less,
                    and at C only the one that draws least

No request is refused for heat, and none is slowed down: where even the cheapest point draws too
much at this rate, the board gets as hot as it gets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from tightrope.arrays import Floats
from tightrope.errors import DeviceUnavailable
from tightrope.power import PowerModel
from tightrope.runtime.ceiling import Ceiling

if TYPE_CHECKING:
    from tightrope.jetson.telemetry import Telemetry

BAND_C = 5.0
"""Below the ceiling, in which points are left out. A board warms by less than a degree a second."""
OVER_S = 30.0
"""Of which the mean power counts."""
RATE_OVER = 16
"""Requests by which it is known how often they come."""

Choices = npt.NDArray[np.bool_]
"""Of a planner's candidates, [P]."""


class Sensing(Protocol):
    """What is read of a board."""

    def hottest_c(self) -> float | None: ...

    def mean_watts(self, seconds: float) -> float | None:
        """Of the last seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Cooled:
    """Points that are cool enough, and why."""

    choices: Choices
    hottest_c: float | None
    watts: Floats | None
    """Of each candidate, [P]."""
    allowed_watts: float | None
    left_out: int


class Heat:
    """The ceiling over one board, and how often requests come."""

    def __init__(self, ceiling: Ceiling, sensing: Sensing, clock: Callable[[], float]) -> None:
        """clock: seconds."""
        self.ceiling = ceiling
        self._sensing, self._clock = sensing, clock
        self._done: deque[float] = deque(maxlen=RATE_OVER)

    def done(self) -> None:
        """A request is."""
        self._done.append(self._clock())

    def cool(
        self, fits: Choices, total_ms: Floats, joules: Floats, power: PowerModel | None
    ) -> Cooled:
        """Of the points that fit, one or more, those that draw what is allowed.

        total_ms, joules: of each candidate, [P]; power: None where nobody measured it. Then a
        point draws in proportion to its time, as far as points are compared by it.
        """
        ceiling, degrees, allowed = self.ceiling, None, np.inf
        watts = self._watts(fits, total_ms, joules, power)
        if ceiling.max_watts is not None:
            measured = self._sensing.mean_watts(OVER_S) or 0.0
            allowed = ceiling.max_watts - max(0.0, measured - ceiling.max_watts)
        if ceiling.max_temp is not None:
            degrees = self._sensing.hottest_c()
            share = 0.0 if degrees is None else (ceiling.max_temp - degrees) / BAND_C
            if share < 1:
                least, most = float(watts[fits].min()), float(watts[fits].max())
                allowed = min(allowed, least + max(0.0, share) * (most - least))
        cool = fits & (watts <= allowed)
        if not cool.any():
            cool[int(np.where(fits, watts, np.inf).argmin())] = True
        return Cooled(
            choices=cool,
            hottest_c=degrees,
            watts=None if power is None else watts,
            allowed_watts=None if power is None or np.isinf(allowed) else float(allowed),
            left_out=int(fits.sum() - cool.sum()),
        )

    def _watts(
        self, fits: Choices, total_ms: Floats, joules: Floats, power: PowerModel | None
    ) -> Floats:
        """Of each candidate as requests come now, [P]; infinite where it does not fit."""
        seconds = total_ms[fits] / 1e3
        rate = self._rate() or 1 / float(seconds.max())
        found: Floats = np.full(len(fits), np.inf)
        if power is None:
            found[fits] = rate * seconds
        else:
            found[fits] = power.idle_w + rate * (joules[fits] - power.idle_w * seconds)
        return found

    def _rate(self) -> float | None:
        """Requests a second, of late; None where too few came."""
        if len(self._done) < 2:
            return None
        lasted = self._done[-1] - self._done[0]
        since = self._clock() - self._done[-1]
        span = max(lasted, since)  # they stopped coming
        return (len(self._done) - 1) / span if span > 0 else None


def heat_of(ceiling: Ceiling | None, telemetry: Telemetry | None) -> Heat | None:
    """None without a ceiling.

    Raises DeviceUnavailable where no sensor tells what the ceiling limits.
    """
    if ceiling is None:
        return None
    if ceiling.max_temp is not None and (telemetry is None or telemetry.hottest_c() is None):
        raise DeviceUnavailable(
            f"max_temp is {ceiling.max_temp:g}, but no thermal zone can be read in "
            "/sys/class/thermal; leave it out, or run it where the board's sensors can be seen"
        )
    if ceiling.max_watts is not None and (telemetry is None or telemetry.sensors.source is None):
        raise DeviceUnavailable(
            f"max_watts is {ceiling.max_watts:g}, but no sensor tells what the board draws; leave "
            "it out, and see `tightrope doctor`"
        )
    assert telemetry is not None
    return Heat(ceiling, telemetry, telemetry.clock)
