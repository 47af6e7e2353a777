"""Joules between two moments, from a sensor that tells of power late.

An INA3221 averages: its reading at a time is the mean of what was drawn before, as seen through a
window whose middle lies `lag` earlier, and whose end two lags. Of a load from a to b, all is read
from a to b + 2 lags, with a lag's worth of what was drawn before it and of what is drawn behind it:

    energy = read(a .. b + 2 lag) - lag · watts before a - lag · watts behind b

whatever the window's shape, if power next to the load is steady for two lags. Whoever cannot wait
takes what is not read yet at b for the last that was:

    energy = read(a .. b) - lag · watts before a + lag · last watts

Next to another load both are as wrong as its power is uneven; what is shorter than SHORTEST_LAGS is
measured by doing it many times in a row. A counter of joules has no lag, and none of this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Doubles

SHORTEST_LAGS = 4.0
SETTLED_LAGS = 3.0
"""After so many, all that was drawn has been read."""
SHORTEST_COUNTED_S = 0.02
"""Of a counter of joules, which moves a thousand times a second."""
MOMENT_S = 0.05
"""Between two readings."""
LONGEST_GAP_S = 0.5
"""Between readings: what lies between is not known."""
STUCK_S, STUCK_READINGS = 30.0, 300
"""A sensor that says the same for so long, so often, is taken for dead: a board that works varies
by more than the last digit."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Readings, the oldest first, [N] each."""

    times: Doubles
    """Seconds."""
    joules: Doubles
    """Drawn until then, as far as it was read."""
    lag_s: float

    @property
    def shortest_s(self) -> float:
        """What can be measured when it is done once."""
        return SHORTEST_LAGS * self.lag_s or SHORTEST_COUNTED_S

    def at(self, time_s: float) -> float:
        """Joules until then; none are known behind the last reading."""
        return float(np.interp(time_s, self.times, self.joules))

    def mean_watts(self, begin_s: float, end_s: float) -> float:
        """As far as it was read; of a moment at the edge of what is known, the nearest."""
        first, last = float(self.times[0]), float(self.times[-1])
        begin = min(max(begin_s, first), last - MOMENT_S)
        end = max(min(end_s, last), begin + MOMENT_S)
        return (self.at(end) - self.at(begin)) / (end - begin)


def unknown_because(curve: Curve, watts: Doubles, begin_s: float, end_s: float) -> str | None:
    """Why the energy between two moments cannot be told; None where it can.

    watts: [N], what was read, or nothing at all from a counter.
    """
    length = end_s - begin_s
    if length < curve.shortest_s:
        return (
            f"too short to measure: {1e3 * length:.0f} ms, the sensor needs "
            f"{1e3 * curve.shortest_s:.0f} ms; repeat it"
        )
    first = int(np.searchsorted(curve.times, begin_s, side="right")) - 1
    inside = curve.times[max(first, 0) : int(np.searchsorted(curve.times, end_s)) + 1]
    if first < 0 or len(inside) < 2 or float(np.diff(inside).max()) > LONGEST_GAP_S:
        return "the power sensor could not be read all the time"
    if float(curve.times[-1]) < end_s - LONGEST_GAP_S:
        return "the power sensor could not be read all the time"
    recent = watts[int(np.searchsorted(curve.times, end_s - STUCK_S)) :]
    lasting = float(curve.times[0]) <= end_s - STUCK_S
    if lasting and len(recent) >= STUCK_READINGS and float(np.ptp(recent)) == 0.0:
        return f"the power sensor has said {recent[-1]:g} W for {STUCK_S:g} s"
    return None


def energy_j(curve: Curve, begin_s: float, end_s: float) -> float:
    """Joules that were drawn between two moments of which `unknown_because` says nothing."""
    lag = curve.lag_s
    if not lag:
        return curve.at(end_s) - curve.at(begin_s)
    before = curve.mean_watts(begin_s - lag / 2, begin_s)
    if float(curve.times[-1]) >= end_s + SETTLED_LAGS * lag:
        read = curve.at(end_s + 2 * lag) - curve.at(begin_s)
        behind = curve.mean_watts(end_s + 2 * lag, end_s + SETTLED_LAGS * lag)
        return max(0.0, read - lag * (before + behind))
    # What is known of the time behind its end must not count for its tail.
    last = curve.mean_watts(end_s - lag / 2, end_s)
    unread_s = lag + max(0.0, end_s - float(curve.times[-1]))
    return max(0.0, curve.at(end_s) - curve.at(begin_s) + unread_s * last - lag * before)
