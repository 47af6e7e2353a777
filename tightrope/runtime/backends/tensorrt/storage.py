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
from tightrope.interface.tensors import numbered
from tightrope.plugins.commit import Int8Row, LayerRow
from tightrope.plugins.commit.reference import from_int8
from tightrope.runtime.backends.tensorrt.arena import POSITIONS, SCORES, Part, SlotMemory
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

    @property
    def nbytes(self) -> int:
        each = sum(part.row_bytes for part in self._memory.parts)
        return 2 * int(self.capacity.sum()) * self._lanes * each

    def _blank(self) -> None:
        """Empty every slot: zeros, and positions of -1."""
        for name, shape in self.arena.shapes.items():
            size = int(np.prod(shape)) * self.arena.dtypes[name].itemsize
            byte = 0xFF if name in POSITIONS else 0
            self._device.fill(self.arena.address(name), byte, size)

    def views(self, side: int, used: Counts | None = None) -> SlotViews:
        used = self.capacity if used is None else used
        keys, values = (
            [self._held(names, layer)[:, :, :count] for layer, count in enumerate(used)]
            for names in (
                [part.key for part in self._memory.parts],
                [part.value for part in self._memory.parts],
            )
        )
        return SlotViews(keys, values, *self.ranking(side))

    def _held(self, names: Sequence[str], layer: int) -> Array:
        """A layer's keys, or values: as they lie there, or what int8 stands for."""
        rows, *scale = (self._downloaded(numbered(name, layer)) for name in names)
        return from_int8(rows, *scale) if scale else rows

    def _downloaded(self, name: str) -> Array:
        arena = self.arena
        place, shape, dtype = arena.address(name), arena.shapes[name], arena.dtypes[name]
        return DeviceArray(self._device, place, shape, dtype).numpy()

    def ranking(self, side: int) -> tuple[Floats, Ordinals]:
        return self._downloaded(SCORES[side]), self._downloaded(POSITIONS[side])

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
                    self._row(layer, place, rows.lengths[layer])
                    for layer, place in enumerate(places)
                ]
                self._device.upload(arena.table, np.array(table, np.int64))
                arena.table_of = rows
            scatter = self._memory.rounds or self._memory.moves[self._memory.parts[0]]
            scatter(arena.table, len(rows.keys), self._lanes, max(rows.lengths))

    def _row(self, layer: int, places: tuple[int, int, int], length: int) -> tuple[int, ...]:
        """Of the table that commit reads; places: of new keys, values and targets."""
        capacity = int(self.capacity[layer])
        addresses = [
            self.arena.address(numbered(name, layer))
            for part in self._memory.parts
            for name in (part.key, part.value)
        ]
        fields = (*addresses, *places, capacity, length)
        if self._memory.rounds is None:
            return LayerRow._make(fields)
        return Int8Row._make(fields)

    def compact(self, side: int, moves: Sequence[Move]) -> None:
        with self._device:
            for move in moves:
                self._close_up(move)
        score, position = self.ranking(side)
        compact_ranking(score, position, moves)
        self.restore(side, score, position)

    def _close_up(self, move: Move) -> None:
        """Copy a layer's slots aside, part by part, and from there each to where it goes."""
        capacity = int(self.capacity[move.layer])
        goes = np.full((self.arena.rows, self._dims.num_key_value_heads, capacity), -1, np.int32)
        places = np.where(move.stays, np.arange(move.order.shape[2], dtype=np.int32), -1)
        np.put_along_axis(goes, move.order, places, 2)
        for part in self._memory.parts:
            self._move(part, move.layer, goes)

    def _move(self, part: Part, layer: int, goes: Ordinals) -> None:
        """goes: int32 [N,Hkv,capacity], the slot that each one goes to."""
        capacity, device, apart = int(self.capacity[layer]), self._device, self._memory.apart
        size = self._lanes * capacity * part.row_bytes
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
        mine = [self.arena.address(numbered(name, layer)) for name in (part.key, part.value)]
        for source, copy in zip(mine, (keys, values), strict=True):
            device.copy(copy, source, size)
            device.fill(source, 0, size)
        row = LayerRow._make((*mine, keys, values, target, capacity, capacity))
        device.upload(target, goes)
        device.upload(address, np.array(row, np.int64))
        self._memory.moves[part](address, 1, self._lanes, capacity)

    def copied(self, rows: int, capacity: Counts, side: int) -> DeviceStorage:
        copy = DeviceStorage(self._memory, rows, capacity)
        with self._device:
            for part in self._memory.parts:
                for layer in range(self._dims.num_hidden_layers):
                    for name in (part.key, part.value):
                        self._copy_layer(copy, numbered(name, layer), layer, part.row_bytes)
        (score, position), most = self.ranking(side), int(capacity.max())
        times = rows // self.arena.rows
        copy.restore(
            0, np.repeat(score[..., :most], times, 1), np.repeat(position[..., :most], times, 1)
        )
        return copy

    def _copy_layer(self, to: DeviceStorage, name: str, layer: int, row_bytes: int) -> None:
        mine, theirs = (int(each.capacity[layer]) * row_bytes for each in (self, to))
        target, source = to.arena.address(name), self.arena.address(name)
        times = to.arena.rows // self.arena.rows
        for number in range(times):
            start = target + number * self._lanes * theirs
            self._device.copy_rows(start, theirs, source, mine, min(mine, theirs), self._lanes)
