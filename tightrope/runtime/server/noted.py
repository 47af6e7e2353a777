"""A backend that tells of each of its calls how long it took.

A watchdog that the engine feeds can tell a call that hangs from one that is long only if it is fed
behind every call, and knows how long they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tightrope.arrays import Array, Counts, Floats, Indices
from tightrope.interface.calls import Call, Update
from tightrope.runtime.backends.backend import Backend, VisualTokens
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.likeliest import Logits
from tightrope.runtime.slots import Slots
from tightrope.runtime.storage import Storage


class Noted:
    """The backend itself, but for what is told."""

    def __init__(self, backend: Backend, took: Callable[[float], object]) -> None:
        """took: called with seconds behind each call, on the engine's thread."""
        self.name, self.device, self.threads = backend.name, backend.device, backend.threads
        self.notes = backend.notes
        self._backend, self._took = backend, took

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._took(time.monotonic() - begun)

    def make_storage(self, rows: int, capacity: Counts) -> Storage:
        return self._backend.make_storage(rows, capacity)

    def vision(self, inputs: Mapping[str, Array], cancel: Cancel) -> VisualTokens:
        with self._timed():
            return self._backend.vision(inputs, cancel)

    def select(
        self, method: str, tokens: VisualTokens, text_embeds: Floats, keep: int
    ) -> tuple[Indices, Floats]:
        with self._timed():
            return self._backend.select(method, tokens, text_embeds, keep)

    def prefill(self, slots: Slots, call: Call, cancel: Cancel) -> tuple[Floats, Update]:
        with self._timed():
            return self._backend.prefill(slots, call, cancel)

    def decode(self, slots: Slots, call: Call) -> tuple[Logits, Update]:
        with self._timed():
            return self._backend.decode(slots, call)
