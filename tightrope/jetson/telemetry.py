"""A thread that looks at a board twenty times a second, as long as somebody wants to know.

Power is read each time; heat, throttling and over-current, which are slow or latched, every tenth.
Whoever asks keeps it awake for a while; then it ends, and a board at rest costs nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache

from tightrope.jetson.files import number_of
from tightrope.jetson.probe import ROOT
from tightrope.jetson.record import Record
from tightrope.jetson.sensors import (
    Sensors,
    hottest_c,
    sensors_of,
    throttled_by,
    total_watts,
)
from tightrope.jetson.spent import Spent

PERIOD_S = 0.05
SLOW_EVERY = 10
"""Looks, of which one is at heat and events as well."""
AWAKE_S = 600.0
"""After the last that somebody asked."""

Clock = Callable[[], float]


class Telemetry:
    """Looks at `sensors` into a record."""

    def __init__(self, sensors: Sensors, clock: Clock = time.perf_counter) -> None:
        """clock: seconds, by which what is recorded is asked for."""
        self.sensors, self.clock = sensors, clock
        self.record = Record(sensors.source, sensors.lag_s)
        self._turn = 0
        self._wanted_until = -1.0
        self._counted = _Counted(sensors)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._looking = threading.Lock()

    def wake(self) -> None:
        """Look from now on, for a while at least."""
        self._wanted_until = time.monotonic() + AWAKE_S
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name="tightrope telemetry", daemon=True
                )
                self._thread.start()

    def _serve(self) -> None:
        due = time.monotonic()
        while self._is_wanted():
            self.look()
            due += PERIOD_S
            early = due - time.monotonic()
            if early > 0:
                time.sleep(early)
            else:  # what was missed is not made up for
                due = time.monotonic()

    def _is_wanted(self) -> bool:
        """Whether to go on; else the next who asks starts another thread."""
        with self._lock:
            if time.monotonic() < self._wanted_until:
                return True
            self._thread = None
            return False

    def look(self) -> None:
        """Once, at what it is the turn of."""
        with self._looking:
            self._look_at_power()
            if self._turn % SLOW_EVERY == 0:
                self._look_at_events()
            self._turn += 1

    def _look_at_power(self) -> None:
        if self.sensors.total:
            watts = total_watts(self.sensors)
            if watts is not None:
                self.record.add_watts(self.clock(), watts)
        elif self.sensors.counters:
            joules = self._counted.joules()
            if joules is not None:
                self.record.add_joules(self.clock(), joules)

    def _look_at_events(self) -> None:
        now, record = self.clock(), self.record
        degrees = hottest_c(self.sensors)
        if degrees is not None:
            record.add_heat(now, degrees)
        record.add_throttled(now, throttled_by(self.sensors))
        for name, file in self.sensors.events:
            count = number_of(file)
            if count is not None and count >= 0:
                record.add_over_current(now, name, count)

    def begin(self) -> None:
        """Something is to be measured from now on."""
        self.wake()
        self._count_now()

    def spent(self, begin_s: float, end_s: float, first_token_s: float, tokens: int) -> Spent:
        """What was spent meanwhile; first_token_s, tokens: as for `Record.between`."""
        self._count_now()
        return self.record.between(begin_s, end_s, first_token_s, tokens)

    def hottest_c(self) -> float | None:
        """Of all zones, now; None where none can be read."""
        return hottest_c(self.sensors)

    def mean_watts(self, seconds: float) -> float | None:
        """Over so many of the last; None where too little of them was read."""
        return self.record.mean_watts(self.clock() - seconds)

    def _count_now(self) -> None:
        """A counter is read where a stretch begins and ends: it knows of every moment."""
        if self.sensors.counters:
            with self._looking:
                self._look_at_power()


class _Counted:
    """Counters of joules as one that never begins anew."""

    def __init__(self, sensors: Sensors) -> None:
        self._counters = sensors.counters
        self._last = [counter.joules() for counter in self._counters]
        self._sum = 0.0

    def joules(self) -> float | None:
        """Since it was made; None where one cannot be read."""
        now = [counter.joules() for counter in self._counters]
        if any(value is None for value in now):
            return None
        for counter, last, value in zip(self._counters, self._last, now, strict=True):
            if last is not None and value is not None:
                self._sum += value - last if value >= last else value - last + counter.wraps_at
        self._last = now
        return self._sum


@lru_cache(maxsize=1)
def _telemetry_of(process: int) -> Telemetry | None:
    sensors = sensors_of(ROOT)
    return Telemetry(sensors) if sensors.any else None


def telemetry_here() -> Telemetry | None:
    """This machine's, which all of the process shares; None where there is no sensor."""
    return _telemetry_of(os.getpid())
