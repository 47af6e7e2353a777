"""Device memory for slots: what one set of them takes, and all sets within the memory plan."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from tightrope.arrays import Counts
from tightrope.errors import BackendError
from tightrope.interface.tensors import (
    FLOAT_SLOTS,
    INT8_SLOTS,
    NEXT_POSITION,
    NEXT_SCORE,
    SLOT_KEY,
    SLOT_KEY_SCALE,
    SLOT_POSITION,
    SLOT_SCORE,
    SLOT_VALUE,
    SLOT_VALUE_SCALE,
    Dims,
    numbered,
)
from tightrope.plugins.commit import Int8Row, LayerRow
from tightrope.runtime.backends.tensorrt.driver import Device
from tightrope.runtime.backends.tensorrt.scatter import moving, rounding
from tightrope.runtime.backends.tensorrt.staging import DeviceBlock, Layout, nbytes_of
from tightrope.runtime.storage import SMALLEST_CAPACITY, sixteenth_more

SCORES, POSITIONS = (SLOT_SCORE, NEXT_SCORE), (SLOT_POSITION, NEXT_POSITION)
"""What a call that reads side 0 reads and writes; one that reads side 1, the other way round."""
_TABLE = "table"


class Part(NamedTuple):
    """What a slot holds of a token: something of its key, and the same of its value."""

    key: str
    """Name of the graph's input."""
    value: str
    dtype: np.dtype[Any]
    width: int

    @property
    def row_bytes(self) -> int:
        """Of one token in one head."""
        return self.width * self.dtype.itemsize


def parts_of(dims: Dims, dtype: np.dtype[Any], kv_cache: str) -> tuple[Part, ...]:
    """What slots hold where graphs compute in `dtype`."""
    if kv_cache != INT8_SLOTS:
        return (Part(SLOT_KEY, SLOT_VALUE, dtype, dims.head_dim),)
    return (
        Part(SLOT_KEY, SLOT_VALUE, np.dtype(np.int8), dims.head_dim),
        Part(SLOT_KEY_SCALE, SLOT_VALUE_SCALE, np.dtype(np.float32), 1),
    )


class Arena:
    """One allocation with keys, values, both sides of scores and positions, and commit's table."""

    def __init__(
        self, device: Device, dims: Dims, parts: tuple[Part, ...], rows: int, capacity: Counts
    ) -> None:
        self.rows, self.capacity = rows, capacity.copy()
        layout = arena_layout(dims, parts, rows, capacity)
        self.nbytes = nbytes_of(layout)
        self.shapes = {name: layout[name][0] for name in layout if name != _TABLE}
        """By the names of the graph's inputs and outputs."""
        self.dtypes = {name: layout[name][1] for name in self.shapes}
        self._block = DeviceBlock(device, f"{int(capacity.max())} slots of {rows} rows")
        self._block.lay_out(layout)
        self.table = self._block.addresses[_TABLE]
        self.table_of: object = None
        """Whose addresses the table has."""
        self.kept: dict[Any, Any] = {}
        """What a backend made for these very addresses, such as captured graphs."""

    def address(self, name: str) -> int:
        """Of one of `shapes`."""
        return self._block.addresses[name]

    def bindings(self, side: int) -> dict[str, int]:
        """Where a call that reads `side` finds slots, and where it leaves scores and positions."""
        found = {name: self.address(name) for name in self.shapes}
        for one, other in (SCORES, POSITIONS) if side else ():
            found[one], found[other] = found[other], found[one]
        return found


def arena_layout(dims: Dims, parts: tuple[Part, ...], rows: int, capacity: Counts) -> Layout:
    """What an arena holds."""
    layers, heads = dims.num_hidden_layers, dims.num_key_value_heads
    wide = (layers, rows, heads, int(capacity.max()))
    layout: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for part in parts:
        for name in (part.key, part.value):
            for layer, size in enumerate(capacity.tolist()):
                layout[numbered(name, layer)] = ((rows, heads, size, part.width), part.dtype)
    layout |= {name: (wide, np.dtype(np.float32)) for name in SCORES}
    layout |= {name: (wide, np.dtype(np.int32)) for name in POSITIONS}
    columns = max(len(LayerRow._fields), len(Int8Row._fields))
    layout[_TABLE] = ((layers, columns), np.dtype(np.int64))
    return layout


class SlotMemory:
    """All arenas of a backend; one that is given back is taken again where its sizes are asked for.

    So the next conversation finds graphs that were captured for the last one. What is queued on
    the stream for an arena's last user comes before anything of its next one.
    """

    def __init__(
        self,
        device: Device,
        dims: Dims,
        dtype: np.dtype[Any],
        most_bytes: int,
        kv_cache: str = FLOAT_SLOTS,
    ) -> None:
        """dtype: that graphs compute in. most_bytes: what the memory plan leaves for slots."""
        self.device, self.dims, self.dtype, self.most_bytes = device, dims, dtype, most_bytes
        self.parts = parts_of(dims, dtype, kv_cache)
        self.moves = {part: moving(device, part.row_bytes) for part in self.parts}
        """What moves each part of slots to other ones."""
        self.rounds = rounding(device, dims.head_dim) if kv_cache == INT8_SLOTS else None
        """What commits to slots in int8; None: new rows are moved there."""
        self.apart = DeviceBlock(device, "closing gaps between slots")
        """Where a layer waits while its slots are closed up; used by nobody else."""
        self.held_bytes = 0
        self._idle: list[Arena] = []
        self._returned: deque[Arena] = deque()  # by whichever thread drops slots

    def give(self, arena: Arena) -> None:
        """It is not used any more; from any thread."""
        self._returned.append(arena)

    def take(self, rows: int, capacity: Counts) -> Arena:
        """An arena of these sizes, whatever is in it.

        Raises BackendError where the memory plan does not allow it.
        """
        self._collect()
        for place, arena in enumerate(self._idle):
            if arena.rows == rows and np.array_equal(arena.capacity, capacity):
                return self._idle.pop(place)
        needed = self._bytes_for(rows, capacity)
        while self._idle and self.held_bytes + needed > self.most_bytes:
            self.held_bytes -= self._idle.pop(0).nbytes
        if self.held_bytes + needed > self.most_bytes:
            raise BackendError(
                f"{int(capacity.max())} slots for {rows} answers take {_megabytes(needed)}; the "
                f"memory plan has {_megabytes(self.most_bytes)} for slots, of which "
                f"{_megabytes(self.held_bytes)} are in use: lower kv_budget, ask for fewer "
                "answers at once, or end chats"
            )
        arena = Arena(self.device, self.dims, self.parts, rows, capacity)
        self.held_bytes += needed
        return arena

    def roomy(self, rows: int, needed: Counts) -> Counts:
        """`needed` [L] doubled up to a power of two; where memory is short, a quarter more.

        Each capacity has a graph to capture: there should be few of them.
        """
        self._collect()
        least = np.maximum(needed, SMALLEST_CAPACITY)
        doubled: Counts = 1 << np.ceil(np.log2(least)).astype(np.int64)
        used = self.held_bytes - sum(arena.nbytes for arena in self._idle)
        fits = used + self._bytes_for(rows, doubled) <= self.most_bytes
        return doubled if fits else sixteenth_more(needed)

    def _bytes_for(self, rows: int, capacity: Counts) -> int:
        return nbytes_of(arena_layout(self.dims, self.parts, rows, capacity))

    def _collect(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.append(self._returned.popleft())


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MB"
