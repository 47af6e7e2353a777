"""How many tokens a call of the prefill reads.

Nothing interrupts a call: who is due before waits for its end. Where several ask, calls are bound
by the time that they take, and not by what the graphs bear alone. The latency file tells it, not
the machine's pace: equal prompts are always cut alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from tightrope.latency import PrefillCall, Prefilling, Workload
from tightrope.runtime.settings import Settings

UNIT = 16
"""Tokens by which calls are cut, and of the shortest: below it they cost more than they spare."""


class Chunks:
    """The calls of one bundle."""

    def __init__(
        self,
        most_tokens: int,
        prefilling: Prefilling | None = None,
        call_ms: float = math.inf,
    ) -> None:
        """most_tokens: that a graph takes. call_ms: that a call may take, by `prefilling`."""
        self._most, self._prefilling, self._call_ms = most_tokens, prefilling, call_ms
        self._fitting = lru_cache(maxsize=4096)(self._compute)

    def under(self, settings: Settings, occupied: int = 0) -> Callable[[int], int]:
        """Tokens at most of the call that begins at a token of a prompt, by its number.

        occupied: slots that are full before the prompt.
        """
        # What a call gives up, or leaves out, depends on all that it sees: such are not cut.
        whole = settings.gives_up.any() or settings.link("inside") is not None
        if self._prefilling is None or whole:
            return lambda place: self._most
        return lambda place: self._fitting(occupied + place)

    def _compute(self, occupied: int) -> int:
        if self._takes_ms(self._most, occupied) <= self._call_ms:
            return self._most
        units, too_many = 1, -(-self._most // UNIT)
        while too_many - units > 1:
            middle = (units + too_many) // 2
            if self._takes_ms(middle * UNIT, occupied) <= self._call_ms:
                units = middle
            else:
                too_many = middle
        return min(units * UNIT, self._most)

    def _takes_ms(self, tokens: int, occupied: int) -> float:
        assert self._prefilling is not None
        call = PrefillCall(tokens=float(tokens), occupied=float(occupied))
        work = Workload(text_tokens=tokens, prefill=(call,), context=0.0, most_context=0.0)
        return self._prefilling.ms(work)
