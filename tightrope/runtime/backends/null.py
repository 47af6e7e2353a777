"""Everything but the arithmetic: logits from a script.

Tests of deadlines, streaming and cancellation run on it without a model, and the benchmark of
Python's own share of a token times it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tightrope.arrays import Array, Counts, Floats, Indices
from tightrope.interface.calls import Call, Update
from tightrope.interface.tensors import Dims
from tightrope.runtime.backends.backend import VisualTokens
from tightrope.runtime.cancel import Cancel, Cancelled
from tightrope.runtime.slots import MakeStorage, Slots
from tightrope.runtime.storage import NullStorage, Storage

Script = Callable[[int], int]


class NullBackend:
    """Answers call number i with the token `script(i)` and keeps the newest tokens in its slots."""

    name = device = "null"
    threads = 1

    def __init__(self, dims: Dims, script: Script, make_storage: MakeStorage | None = None) -> None:
        """make_storage: None keeps no keys and values."""
        self._dims, self._script, self._make_storage = dims, script, make_storage
        self._calls = 0
        self.notes: list[str] = []

    def make_storage(self, rows: int, capacity: Counts) -> Storage:
        if self._make_storage is not None:
            return self._make_storage(rows, capacity)
        return NullStorage(self._dims, rows, capacity)

    def vision(self, inputs: Mapping[str, Array], cancel: Cancel) -> VisualTokens:
        images = len(next(iter(inputs.values())))
        return VisualTokens(np.zeros((images, 4, self._dims.hidden_size), np.float32), {})

    def select(
        self, method: str, tokens: VisualTokens, text_embeds: Floats, keep: int
    ) -> tuple[Indices, Floats]:
        index = np.tile(np.arange(keep), (len(tokens.embeds), 1))
        return index, tokens.embeds[:, :keep]

    def prefill(self, slots: Slots, call: Call, cancel: Cancel) -> tuple[Floats, Update]:
        if cancel.reason is not None:
            raise Cancelled
        return self._run(slots, call)

    def decode(self, slots: Slots, call: Call) -> tuple[Floats, Update]:
        return self._run(slots, call)

    def _run(self, slots: Slots, call: Call) -> tuple[Floats, Update]:
        dims, (rows, length) = self._dims, call.query_position.shape
        lanes = (dims.num_hidden_layers, rows, dims.num_key_value_heads, length)
        # A ring: as if ordinals were slots, which is what streaming without sinks does.
        capacity = np.minimum(slots.capacity[:, None], call.kv_budget)[:, None, :, None]
        place = call.query_position[None, :, None] % capacity
        target = np.where(call.query_position[None, :, None] < 0, -1, place)
        target = np.broadcast_to(target, lanes).astype(np.int32)
        next_position = slots.position.copy()
        for layer, position in enumerate(next_position):
            for row, head, token in zip(*np.nonzero(target[layer] >= 0), strict=True):
                ordinal = call.query_position[row, token]
                position[row, head, target[layer, row, head, token]] = ordinal
        logits = np.zeros((rows, dims.vocab_size), np.float32)
        logits[:, self._script(self._calls)] = 1
        self._calls += 1
        new = np.zeros((*lanes, dims.head_dim), np.float32)
        return logits, Update(new, new, target, slots.score, next_position)
