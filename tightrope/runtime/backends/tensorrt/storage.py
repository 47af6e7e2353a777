"""Slots in a device's memory: every move is one kernel or copy on the backend's own stream.

Committing, making room and closing gaps are the same scatter: rows and where each of them goes.
Scores and positions come to the host only where something ranks or cuts there.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tightrope.arrays import Array, Counts, Floats, Ordinals
from tightrope.interface.calls import Update
from tightrope.interface.tensors import SLOT_KEY, SLOT_VALUE, numbered
from tightrope.plugins.commit import LayerRow
from tightrope.runtime.backends.tensorrt.arena import POSITIONS, SCORES, SlotMemory
from tightrope.runtime.backends.tensorrt.driver import Device
from tightrope.runtime.backends.tensorrt.engine import Shape
from tightrope.runtime.storage import Move, SlotViews, compact_ranking


@dataclass(frozen=True, slots=True, eq=False)
class NewRows:
    """Where the new keys, values and targets of a call lie on the device, by layer."""

    keys: Sequence[int]
    values: Sequence[int]
    targets: Sequence[int]
    lengths: Sequence[int]
    """New tokens that each layer saw."""


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """An array on the device, as long as no call writes there again."""

    device: Device
    address: int
    shape: Shape
    dtype: np.dtype[Any]

    def numpy(self) -> Array:
        """A copy in the host's memory."""
        array = np.empty(self.shape, self.dtype)
        with self.device:
            self.device.download(array, self.address)
            self.device.wait()
        return array


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUpdate(Update):
    """What one call left: only `target` is in the host's memory, the others are `DeviceArray`s.

    Scores and positions are where they belong: the call wrote them to the slots' spare side.
    """

    rows: NewRows
    side: int
    """That it wrote."""


class DeviceStorage:
    """A `Storage` on a GPU."""

    def __init__(self, memory: SlotMemory, rows: int, capacity: Counts) -> None:
        """Raises BackendError where the memory plan does not allow it."""
        self._memory, self._device, self._dims = memory, memory.device, memory.dims
        self.capacity = capacity
        with self._device:
            self.arena = memory.take(rows, capacity)
            weakref.finalize(self, memory.give, self.arena).atexit = False
            self._blank()
        self._lanes = rows * self._dims.num_key_value_heads
        self._row_bytes = self._dims.head_dim * memory.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return 2 * int(self.capacity.sum()) * self._lanes * self._row_bytes

    def _blank(self) -> None:
        """Empty every slot: zeros, and positions of -1."""
        for name, shape in self.arena.shapes.items():
            is_key = name.startswith((SLOT_KEY, SLOT_VALUE))
            size = self._memory.dtype.itemsize if is_key else np.dtype(np.float32).itemsize
            byte = 0xFF if name in POSITIONS else 0
            self._device.fill(self.arena.address(name), byte, int(np.prod(shape)) * size)

    def views(self, side: int, used: Counts | None = None) -> SlotViews:
        used = self.capacity if used is None else used
        keys, values = (
            [self._keys(name, layer)[:, :, :count] for layer, count in enumerate(used)]
            for name in (SLOT_KEY, SLOT_VALUE)
        )
        return SlotViews(keys, values, *self.ranking(side))

    def _keys(self, name: str, layer: int) -> Array:
        name = numbered(name, layer)
        return self._downloaded(name, self._memory.dtype)

    def _downloaded(self, name: str, dtype: np.dtype[Any]) -> Array:
        shape, address = self.arena.shapes[name], self.arena.address(name)
        return DeviceArray(self._device, address, shape, dtype).numpy()

    def ranking(self, side: int) -> tuple[Floats, Ordinals]:
        score = self._downloaded(SCORES[side], np.dtype(np.float32))
        return score, self._downloaded(POSITIONS[side], np.dtype(np.int32))

    def restore(self, side: int, score: Floats, position: Ordinals) -> None:
        with self._device:
            for name, narrow, blank in (
                (SCORES[side], score, 0),
                (POSITIONS[side], position, -1),
            ):
                wide = np.full(self.arena.shapes[name], blank, narrow.dtype)
                wide[..., : narrow.shape[3]] = narrow
                self._device.upload(self.arena.address(name), wide)

    def roomy(self, needed: Counts) -> Counts:
        return self._memory.roomy(self.arena.rows, needed)

    def write(self, update: Update, side: int) -> None:
        assert isinstance(update, DeviceUpdate) and update.side == side, "it ran on these slots"
        rows, arena = update.rows, self.arena
        with self._device:
            if arena.table_of is not rows:
                places = zip(rows.keys, rows.values, rows.targets, strict=True)
                table = [
                    self._row(layer, *place, rows.lengths[layer])
                    for layer, place in enumerate(places)
                ]
                self._device.upload(arena.table, np.array(table, np.int64))
                arena.table_of = rows
            self._memory.scatter(arena.table, len(rows.keys), self._lanes, max(rows.lengths))

    def _row(self, layer: int, key: int, value: int, target: int, length: int) -> LayerRow:
        slots, more = (self.arena.address(numbered(name, layer)) for name in (SLOT_KEY, SLOT_VALUE))
        return LayerRow(slots, more, key, value, target, int(self.capacity[layer]), length)

    def compact(self, side: int, moves: Sequence[Move]) -> None:
        with self._device:
            for move in moves:
                self._close_up(move)
        score, position = self.ranking(side)
        compact_ranking(score, position, moves)
        self.restore(side, score, position)

    def _close_up(self, move: Move) -> None:
        """Copy a layer's slots aside, and from there each to where it goes."""
        capacity, device, apart = int(self.capacity[move.layer]), self._device, self._memory.apart
        goes = np.full((self.arena.rows, self._dims.num_key_value_heads, capacity), -1, np.int32)
        places = np.where(move.stays, np.arange(move.order.shape[2], dtype=np.int32), -1)
        np.put_along_axis(goes, move.order, places, 2)
        size = self._lanes * capacity * self._row_bytes
        rows = ((size,), np.dtype(np.uint8))
        table = ((len(LayerRow._fields),), np.dtype(np.int64))
        aside: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "keys": rows,
            "values": rows,
            "goes": (goes.shape, goes.dtype),
            "table": table,
        }
        apart.lay_out(aside)
        keys, values, target, address = (apart.addresses[name] for name in aside)
        row = self._row(move.layer, keys, values, target, capacity)
        for source, copy in ((row.slot_key, keys), (row.slot_value, values)):
            device.copy(copy, source, size)
            device.fill(source, 0, size)
        device.upload(target, goes)
        device.upload(address, np.array(row, np.int64))
        self._memory.scatter(address, 1, self._lanes, capacity)

    def copied(self, rows: int, capacity: Counts, side: int) -> DeviceStorage:
        copy = DeviceStorage(self._memory, rows, capacity)
        with self._device:
            for name in (SLOT_KEY, SLOT_VALUE):
                for layer in range(self._dims.num_hidden_layers):
                    self._copy_layer(copy, numbered(name, layer), layer)
        (score, position), most = self.ranking(side), int(capacity.max())
        times = rows // self.arena.rows
        copy.restore(
            0, np.repeat(score[..., :most], times, 1), np.repeat(position[..., :most], times, 1)
        )
        return copy

    def _copy_layer(self, to: DeviceStorage, name: str, layer: int) -> None:
        mine, theirs = (int(each.capacity[layer]) * self._row_bytes for each in (self, to))
        target, source = to.arena.address(name), self.arena.address(name)
        times = to.arena.rows // self.arena.rows
        for number in range(times):
            start = target + number * self._lanes * theirs
            self._device.copy_rows(start, theirs, source, mine, min(mine, theirs), self._lanes)
