"""What a request spent of the board: energy, heat, and what held it back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tightrope.jetson.spent import SHARED, Spent

if TYPE_CHECKING:
    from tightrope.jetson.telemetry import Telemetry
    from tightrope.runtime.answer import Timings
    from tightrope.runtime.stopwatch import Stopwatch


class Spending:
    """One request's share of what the sensors see: the time it did not wait."""

    def __init__(self, telemetry: Telemetry | None) -> None:
        """From now on somebody wants to know; telemetry: None where there are no sensors."""
        self._telemetry = telemetry
        self._queued_ms = 0.0
        if telemetry is not None:
            telemetry.begin()

    def runs(self, queued_ms: float) -> None:
        """The device begins with it, after so long behind others."""
        self._queued_ms = queued_ms

    def spent(self, watch: Stopwatch, timings: Timings, steps: int) -> Spent | None:
        """Until now; steps: those that brought a token behind the first.

        The images of a request that waited were decoded while another ran: the time that this took
        is counted right before it.
        """
        if self._telemetry is None:
            return None
        begin = watch.start + watch.waited_s + self._queued_ms / 1e3
        first = watch.start + timings.ttft_ms / 1e3
        end = watch.start + timings.total_ms / 1e3
        found = self._telemetry.spent(begin, end, first, steps)
        if timings.queue_ms - self._queued_ms > 0:  # it gave way to others
            return replace(found, energy_j=None, token_j=None, why=SHARED)
        return found
