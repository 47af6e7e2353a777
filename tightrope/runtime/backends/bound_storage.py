"""Slots on the device that ONNX Runtime computes on: bound there, never copied by a step.

Scores and positions, which are small and which the host ranks by, stay on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from tightrope.arrays import Array, Counts, Floats, Indices, Ordinals
from tightrope.interface.calls import Update
from tightrope.interface.tensors import SLOT_KEY, SLOT_VALUE, Dims, numbered
from tightrope.plugins.commit import NEW, NEXT, PLACE, SLOTS, SOURCE
from tightrope.runtime.backends.onnxruntime import onnxruntime_errors
from tightrope.runtime.storage import Move, NullStorage, SlotViews, sixteenth_more


@dataclass(frozen=True, slots=True, eq=False)
class BoundArray:
    """An array on the device."""

    value: Any
    """ONNX Runtime's OrtValue."""

    def numpy(self) -> Array:
        """A copy in the host's memory."""
        copy: Array = self.value.numpy()
        return copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where slots lie."""

    device: str
    dtype: np.dtype[Any]
    commit: Any
    """A session of `plugins.commit`'s graph."""

    def put(self, array: Array) -> Any:
        """A copy there."""
        given = np.ascontiguousarray(array, self.dtype)
        with onnxruntime_errors():
            return onnxruntime.OrtValue.ortvalue_from_numpy(given, self.device, 0)

    def blank(self, shape: Sequence[int]) -> Any:
        """Room for such an array."""
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        with onnxruntime_errors():
            return make(list(shape), self.dtype, self.device, 0)

    def bind(self, to: Any, name: str, value: Any, shape: Sequence[int]) -> None:
        """Hand over what lies there, in this shape. to: `bind_input` or `bind_output`."""
        to(name, self.device, 0, self.dtype, list(shape), value.data_ptr())


class BoundStorage:
    """A `Storage` whose keys and values are written by a graph, from one buffer to another.

    No session reads and writes the same memory: what a commit leaves is the spare of the next.
    """

    def __init__(self, place: Place, dims: Dims, rows: int, capacity: Counts) -> None:
        self._place, self._dims, self._rows, self.capacity = place, dims, rows, capacity
        self._ranks = NullStorage(dims, rows, capacity)
        self._lanes = rows * dims.num_key_value_heads
        self._held = {
            numbered(name, layer): place.put(np.zeros(self._shape(layer), np.float32))
            for name in (SLOT_KEY, SLOT_VALUE)
            for layer in range(dims.num_hidden_layers)
        }
        self._spare: dict[tuple[int, ...], Any] = {}

    def _shape(self, layer: int) -> tuple[int, ...]:
        dims = self._dims
        return self._rows, dims.num_key_value_heads, int(self.capacity[layer]), dims.head_dim

    @property
    def nbytes(self) -> int:
        row_bytes = self._dims.head_dim * self._place.dtype.itemsize
        return 2 * int(self.capacity.sum()) * self._lanes * row_bytes

    def bound(self, occupied: Counts) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """By input what a call reads, and its shape; nothing where `occupied` [L] is 0."""
        shapes = [self._shape(layer) for layer in range(len(occupied))]
        seen = [
            shape if held else (*shape[:2], 0, shape[3])
            for shape, held in zip(shapes, occupied, strict=True)
        ]
        return {
            numbered(name, layer): (self._held[numbered(name, layer)], shape)
            for name in (SLOT_KEY, SLOT_VALUE)
            for layer, shape in enumerate(seen)
        }

    def ranks(self, side: int) -> SlotViews:
        """Scores, positions and states of one side, without keys and values."""
        return self._ranks.views(side)

    def views(self, side: int, used: Counts | None = None) -> SlotViews:
        used = self.capacity if used is None else used
        keys, values = (
            [
                self._held[numbered(name, layer)].numpy()[:, :, :count]
                for layer, count in enumerate(used)
            ]
            for name in (SLOT_KEY, SLOT_VALUE)
        )
        ranks = self.ranks(side)
        return SlotViews(keys, values, ranks.score, ranks.position, ranks.conv_state)

    def ranking(self, side: int) -> tuple[Floats, Ordinals]:
        return self._ranks.ranking(side)

    def restore(self, side: int, score: Floats, position: Ordinals) -> None:
        self._ranks.restore(side, score, position)

    def roomy(self, needed: Counts) -> Counts:
        return sixteenth_more(needed)

    def write(self, update: Update, side: int) -> None:
        stacked = not isinstance(update.target, list)
        for layer, target in enumerate(update.target):
            kept = np.flatnonzero(target >= 0)
            if not len(kept):
                continue
            length = target.shape[2]
            goes = kept // length * int(self.capacity[layer]) + target.reshape(-1)[kept]
            source = kept + (layer * target.size if stacked else 0)
            for name, new in ((SLOT_KEY, update.key), (SLOT_VALUE, update.value)):
                rows = new if stacked else new[layer]
                assert isinstance(rows, BoundArray), "of this backend's calls"
                self._commit(numbered(name, layer), rows, source, goes)
        self._ranks.write(update, side)

    def _commit(self, name: str, new: BoundArray, source: Indices, goes: Indices) -> None:
        """Rows `source` of `new` to the rows `goes` of one layer's keys or values."""
        place, old, width = self._place, self._held[name], self._dims.head_dim
        shape = tuple(old.shape())
        spare = self._spare.pop(shape, None)
        if spare is None:
            spare = place.blank(shape)
        flat, rows = int(np.prod(shape[:3])), int(np.prod(new.value.shape()[:-1]))
        where = np.ascontiguousarray(goes[:, None], np.int64)
        with onnxruntime_errors():
            binding = place.commit.io_binding()
            place.bind(binding.bind_input, SLOTS, old, (flat, width))
            place.bind(binding.bind_input, NEW, new.value, (rows, width))
            binding.bind_cpu_input(SOURCE, source)
            binding.bind_cpu_input(PLACE, where)
            place.bind(binding.bind_output, NEXT, spare, (flat, width))
            place.commit.run_with_iobinding(binding)
        self._held[name], self._spare[shape] = spare, old

    def compact(self, side: int, moves: Sequence[Move]) -> None:
        for move in moves:
            order, most = move.order[..., None], move.order.shape[2]
            for kind in (SLOT_KEY, SLOT_VALUE):
                name = numbered(kind, move.layer)
                array = self._held[name].numpy()
                closed = np.zeros_like(array)
                moved = np.take_along_axis(array, order, 2)
                closed[:, :, :most] = np.where(move.stays[..., None], moved, 0)
                self._held[name] = self._place.put(closed)
        self._ranks.compact(side, moves)

    def copied(self, rows: int, capacity: Counts, side: int) -> BoundStorage:
        copy = BoundStorage(self._place, self._dims, rows, capacity)
        for name, old in self._held.items():
            source, to = old.numpy(), np.zeros(copy._held[name].shape(), self._place.dtype)
            keep = min(source.shape[2], to.shape[2])
            to[:, :, :keep] = source[:, :, :keep]
            copy._held[name] = self._place.put(to)
        copy._ranks = self._ranks.copied(rows, capacity, side)
        return copy
