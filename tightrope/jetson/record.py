"""The last minutes of a board: what it drew, how hot it was, what held it back."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Doubles
from tightrope.jetson.energy import LONGEST_GAP_S, Curve, energy_j, unknown_because
from tightrope.jetson.spent import Spent

MOST_READINGS = 18_000
"""A quarter of an hour at 20 Hz."""
MOST_EVENTS = 200
HEAT_S = 0.5
"""Between two readings of heat: one so long before may still be told."""


@dataclass(slots=True)
class _Throttle:
    """A cooling device at work; until_s: None as long as it is."""

    name: str
    since_s: float
    until_s: float | None = None


class Record:
    """Filled by one thread, read by others."""

    def __init__(self, source: str | None, lag_s: float = 0.0) -> None:
        """source: what measures power; lag_s: by which its readings are late."""
        self.source, self.lag_s = source, lag_s
        self._rows = np.empty((2 * MOST_READINGS, 3))  # time, watts, joules: its last part counts
        self._end = 0
        self._heat: deque[tuple[float, float]] = deque(maxlen=MOST_READINGS)
        self._throttles: deque[_Throttle] = deque(maxlen=MOST_EVENTS)
        self._over_currents: deque[float] = deque(maxlen=MOST_EVENTS)
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()
        self.throttles = self.over_currents = 0
        """How often each began, since the record did."""

    def add_watts(self, time_s: float, watts: float) -> None:
        """A reading of power."""
        with self._lock:
            joules = 0.0
            if self._end:
                then, before, total = self._rows[self._end - 1]
                joules = total
                if time_s - then <= LONGEST_GAP_S:  # else nobody knows
                    joules += (time_s - then) * (before + watts) / 2
            self._append(time_s, watts, joules)

    def add_joules(self, time_s: float, joules: float) -> None:
        """What a counter says, since whenever it counts; it never falls."""
        with self._lock:
            watts = 0.0
            if self._end:
                then, _, before = self._rows[self._end - 1]
                watts = (joules - before) / (time_s - then) if time_s > then else 0.0
            self._append(time_s, watts, joules)

    def _append(self, *row: float) -> None:
        if self._end == len(self._rows):
            self._rows[:MOST_READINGS] = self._rows[-MOST_READINGS:].copy()
            self._end = MOST_READINGS
        self._rows[self._end] = row
        self._end += 1

    def add_heat(self, time_s: float, hottest_c: float) -> None:
        """A reading of the hottest zone."""
        with self._lock:
            self._heat.append((time_s, hottest_c))

    def add_throttled(self, time_s: float, names: tuple[str, ...]) -> None:
        """What holds the board back at that moment."""
        with self._lock:
            going_on = {each.name: each for each in self._throttles if each.until_s is None}
            for name in names:
                if name not in going_on:
                    self._throttles.append(_Throttle(name, time_s))
                    self.throttles += 1
            for name, throttle in going_on.items():
                if name not in names:
                    throttle.until_s = time_s

    def add_over_current(self, time_s: float, name: str, count: int) -> None:
        """What a counter of over-currents, or an alarm, says at that moment."""
        with self._lock:
            rise = count - self._counts.get(name, count)
            self._counts[name] = count
            if rise > 0:
                self.over_currents += rise
                self._over_currents.extend([time_s] * min(rise, MOST_EVENTS))

    @property
    def joules(self) -> float | None:
        """Since the record began."""
        with self._lock:
            return float(self._rows[self._end - 1, 2]) if self._end else None

    def mean_watts(self, since_s: float) -> float | None:
        """From then until the last reading; None where less than half of it was read."""
        curve, _ = self.curve()
        if len(curve.times) < 2:
            return None
        first, last = max(since_s, float(curve.times[0])), float(curve.times[-1])
        return None if last - first < (last - since_s) / 2 else curve.mean_watts(first, last)

    def curve(self) -> tuple[Curve, Doubles]:
        """What was read of power, and the readings themselves."""
        with self._lock:
            rows = self._rows[max(0, self._end - MOST_READINGS) : self._end].copy()
        return Curve(rows[:, 0], rows[:, 2], self.lag_s), rows[:, 1]

    def between(
        self, begin_s: float, end_s: float, first_token_s: float | None = None, tokens: int = 0
    ) -> Spent:
        """What was spent from `begin_s` to `end_s`.

        first_token_s, tokens: since when how many tokens came, one a step.
        """
        energy, token, why = None, None, None
        if self.source is None:
            why = "no power sensor"
        else:
            curve, watts = self.curve()
            why = _unknown(curve, watts, begin_s, end_s)
            if why is None:
                energy = energy_j(curve, begin_s, end_s)
            if (
                first_token_s is not None
                and tokens > 0
                and _unknown(curve, watts, first_token_s, end_s) is None
            ):
                token = energy_j(curve, first_token_s, end_s) / tokens
        with self._lock:
            heat = [degrees for at, degrees in self._heat if begin_s - HEAT_S <= at <= end_s]
            throttled = dict.fromkeys(
                each.name
                for each in self._throttles
                if each.since_s <= end_s and (each.until_s is None or each.until_s >= begin_s)
            )
            over = sum(begin_s <= at <= end_s for at in self._over_currents)
        return Spent(
            energy_j=energy,
            token_j=token,
            source=self.source,
            why=why,
            hottest_c=max(heat, default=None),
            throttled=tuple(throttled),
            over_current=over,
        )


def _unknown(curve: Curve, watts: Doubles, begin_s: float, end_s: float) -> str | None:
    if len(curve.times) < 2:
        return "the power sensor could not be read all the time"
    return unknown_because(curve, watts, begin_s, end_s)
