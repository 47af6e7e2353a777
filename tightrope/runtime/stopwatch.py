"""Milliseconds per stage of one request, from its submission to its last token."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from tightrope.runtime.answer import Timings

Clock = Callable[[], float]
"""Seconds, ascending; tests script it."""


class Stopwatch:
    """Adds up what stages take, by the names that `Timings` has; it runs from now on."""

    def __init__(self, clock: Clock = time.perf_counter, waited_s: float = 0.0) -> None:
        """waited_s: for which the request had been waited for already."""
        self._clock, self.waited_s = clock, waited_s
        self.start = clock() - waited_s
        """Seconds, by the clock."""
        self._waited_ms: float | None = None
        """To the first token, once that is there."""
        self._stages: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = self._clock()
        try:
            yield
        finally:
            self.add(stage, (self._clock() - started) * 1e3)

    def elapsed_ms(self) -> float:
        """Since the request began."""
        return (self._clock() - self.start) * 1e3

    @property
    def waited_ms(self) -> float:
        """For others, and before it began: to the first token, or until now where none is there."""
        return self.all_waited_ms if self._waited_ms is None else self._waited_ms

    @property
    def all_waited_ms(self) -> float:
        """The same until now in any case."""
        return 1e3 * self.waited_s + self._stages.get("queue_ms", 0.0)

    def add(self, stage: str, ms: float) -> None:
        """Note what a stage took that nobody was inside of."""
        self._stages[stage] = self._stages.get(stage, 0.0) + ms

    def pause(self, stage: str, ms: float) -> None:
        """Inside a stage the device did something else for so long."""
        self.add("queue_ms", ms)
        self.add(stage, -ms)

    def first_token(self) -> None:
        """Note the time to the first token."""
        self._stages["ttft_ms"] = self.elapsed_ms()
        self._waited_ms = self.all_waited_ms

    def timings(self) -> Timings:
        """All stages; decoding lasts from the first token until now."""
        total = self.elapsed_ms()
        ttft = self._stages.get("ttft_ms", total)
        decode = total - ttft + self._stages.get("decode_ms", 0.0)  # what it was paused for
        return Timings(**(self._stages | {"total_ms": total, "decode_ms": decode}))
