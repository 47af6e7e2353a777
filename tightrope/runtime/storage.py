"""Memory for slots: keys, values, scores and positions of every layer, for N rows.

Beside them the state of layers that hold no slots, which every call writes anew.

`Slots` keeps the books; a storage holds the arrays and moves them. A backend makes its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tightrope.arrays import Array, Counts, Flags, Floats, Indices, Ordinals
from tightrope.interface.calls import Update
from tightrope.interface.tensors import FLOAT_SLOTS, INT8_SLOTS, Dims
from tightrope.plugins.commit.reference import from_int8, to_int8

SMALLEST_CAPACITY = 64


@dataclass(frozen=True, slots=True)
class SlotViews:
    """What a graph reads of slots, see `interface.calls.SlotArrays`."""

    keys: Sequence[Array]
    values: Sequence[Array]
    score: Floats
    position: Ordinals
    conv_state: Array | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """Slots of a layer go to its first places; those that do not stay are empty then."""

    layer: int
    order: Indices
    """[N,Hkv,M], ascending where they stay"""
    stays: Flags
    """[N,Hkv,M]"""


class Storage(Protocol):
    """Slots of fixed capacity; they start as zeros, their positions as -1.

    Scores, positions and states exist twice, side 0 and side 1: a call reads one and may write the
    other.
    """

    @property
    def capacity(self) -> Counts:
        """Slots of each layer, [L]."""

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""

    def views(self, side: int, used: Counts | None = None) -> SlotViews:
        """Everything with one side's scores; keys and values cut behind `used` [L] slots.

        Of a storage on a device it is a copy.
        """

    def ranking(self, side: int) -> tuple[Floats, Ordinals]:
        """Scores and positions of one side in the host's memory, [L,N,Hkv,C] each."""

    def restore(self, side: int, score: Floats, position: Ordinals) -> None:
        """Set one side's scores and positions; both are narrower than the capacity, or as wide."""

    def roomy(self, needed: Counts) -> Counts:
        """Slots [L] to allocate where `needed` [L] of them find no room."""

    def write(self, update: Update, side: int) -> None:
        """Put a call's rows where its targets say, and its scores and positions on `side`."""

    def compact(self, side: int, moves: Sequence[Move]) -> None:
        """Close up the slots of some layers."""

    def copied(self, rows: int, capacity: Counts, side: int) -> Storage:
        """A new storage for `rows` rows, whose side 0 holds what `side` held, as far as it fits.

        One row is repeated.
        """


class NumpyStorage:
    """In the memory of the host.

    Keys and values lie layer behind layer in flat arrays, so that one scatter writes all of them.
    """

    def __init__(
        self,
        dims: Dims,
        rows: int,
        capacity: Counts,
        dtype: npt.DTypeLike = np.float32,
        kv_cache: str = FLOAT_SLOTS,
    ) -> None:
        """kv_cache: where it is int8, what is written is what int8 keeps, still in `dtype`."""
        self._dims, self._rows, self._dtype, self._kv_cache = dims, rows, dtype, kv_cache
        self.capacity = capacity
        layers, heads = dims.num_hidden_layers, dims.num_key_value_heads
        lanes = rows * heads
        starts = np.concatenate([[0], np.cumsum(capacity * lanes)])
        self._flat = np.zeros((2, int(starts[-1]), dims.head_dim), dtype)
        keys, values = (
            [
                flat[start:end].reshape(rows, heads, size, dims.head_dim)
                for start, end, size in zip(starts[:-1], starts[1:], capacity, strict=True)
            ]
            for flat in self._flat
        )
        self._sides = _two_sides(dims, rows, capacity, keys, values)
        lane = np.arange(lanes).reshape(rows, heads)
        # First row of each layer, batch row and head in the flat arrays.
        self._base: Counts = starts[:layers, None, None] + lane * capacity[:, None, None]

    @property
    def nbytes(self) -> int:
        return self._flat.nbytes

    def views(self, side: int, used: Counts | None = None) -> SlotViews:
        views = self._sides[side]
        if used is None:
            return views
        keys, values = (
            [array[:, :, :count] for array, count in zip(arrays, used, strict=True)]
            for arrays in (views.keys, views.values)
        )
        return SlotViews(keys, values, views.score, views.position, views.conv_state)

    def ranking(self, side: int) -> tuple[Floats, Ordinals]:
        views = self._sides[side]
        return views.score, views.position

    def restore(self, side: int, score: Floats, position: Ordinals) -> None:
        _restore_side(self._sides[side], score, position)

    def roomy(self, needed: Counts) -> Counts:
        return sixteenth_more(needed)

    def write(self, update: Update, side: int) -> None:
        if isinstance(update.target, list):
            for layer, target in enumerate(update.target):
                self._scatter(self._base[layer], target, update.key[layer], update.value[layer])
        else:
            assert isinstance(update.key, np.ndarray) and isinstance(update.value, np.ndarray)
            self._scatter(self._base, update.target, update.key, update.value)
        _write_side(self._sides[side], update)

    def _scatter(self, base: Counts, target: Array, key: Array, value: Array) -> None:
        """key and value [..,S,D] to the flat rows base[..] + target[..,S]; -1 goes nowhere."""
        if self._kv_cache == INT8_SLOTS:
            key, value = (from_int8(*to_int8(each)) for each in (key, value))
        rows = base[..., None] + target
        if (target < 0).any():
            kept = target >= 0
            rows, key, value = rows[kept], key[kept], value[kept]
        self._flat[0][rows] = key
        self._flat[1][rows] = value

    def compact(self, side: int, moves: Sequence[Move]) -> None:
        views = self._sides[side]
        for move in moves:
            order, most = move.order[..., None], move.order.shape[2]
            for array in (views.keys[move.layer], views.values[move.layer]):
                moved = np.take_along_axis(array, order, 2)
                array[:, :, :most] = np.where(move.stays[..., None], moved, 0)
                array[:, :, most:] = 0
        compact_ranking(views.score, views.position, moves)

    def copied(self, rows: int, capacity: Counts, side: int) -> NumpyStorage:
        copy = NumpyStorage(self._dims, rows, capacity, self._dtype, self._kv_cache)
        old, new = self._sides[side], copy._sides[0]
        for before, after in ((old.keys, new.keys), (old.values, new.values)):
            for source, to in zip(before, after, strict=True):
                keep = min(source.shape[2], to.shape[2])
                to[:, :, :keep] = source[:, :, :keep]
        _copy_side(old, new)
        return copy


class NullStorage:
    """Scores and positions alone, for a backend that computes nothing."""

    nbytes = 0

    def __init__(self, dims: Dims, rows: int, capacity: Counts) -> None:
        self._dims, self.capacity = dims, capacity
        self._sides = _two_sides(dims, rows, capacity, [], [])

    def views(self, side: int, used: Counts | None = None) -> SlotViews:
        return self._sides[side]

    def ranking(self, side: int) -> tuple[Floats, Ordinals]:
        views = self._sides[side]
        return views.score, views.position

    def restore(self, side: int, score: Floats, position: Ordinals) -> None:
        _restore_side(self._sides[side], score, position)

    def roomy(self, needed: Counts) -> Counts:
        return sixteenth_more(needed)

    def write(self, update: Update, side: int) -> None:
        _write_side(self._sides[side], update)

    def compact(self, side: int, moves: Sequence[Move]) -> None:
        views = self._sides[side]
        compact_ranking(views.score, views.position, moves)

    def copied(self, rows: int, capacity: Counts, side: int) -> NullStorage:
        copy = NullStorage(self._dims, rows, capacity)
        _copy_side(self._sides[side], copy._sides[0])
        return copy


def sixteenth_more(needed: Counts) -> Counts:
    """Capacities that grow by a sixteenth beyond what is needed, in steps of 64.

    At any length a copy of the cache then costs a token about as much as attending over slots that
    are empty.
    """
    step = SMALLEST_CAPACITY
    roomy: Counts = np.where(needed > step, -(-needed * 17 // (16 * step)) * step, step)
    return roomy


def _two_sides(
    dims: Dims, rows: int, capacity: Counts, keys: Sequence[Array], values: Sequence[Array]
) -> list[SlotViews]:
    wide = (dims.num_hidden_layers, rows, dims.num_key_value_heads, int(capacity.max()))
    state = (dims.conv_layers, rows, dims.hidden_size, dims.conv_inputs)
    return [
        SlotViews(
            keys,
            values,
            np.zeros(wide, np.float32),
            np.full(wide, -1, np.int32),
            np.zeros(state, np.float32) if dims.conv_layers else None,
        )
        for _ in range(2)
    ]


def _write_side(views: SlotViews, update: Update) -> None:
    """What of an update is whole; a graph that was bound to it wrote it already."""
    pairs = (
        (views.score, update.next_score),
        (views.position, update.next_position),
        (views.conv_state, update.next_conv_state),
    )
    for mine, theirs in pairs:
        if mine is not None and theirs is not None and mine is not theirs:
            np.copyto(mine, theirs)


def compact_ranking(score: Floats, position: Ordinals, moves: Sequence[Move]) -> None:
    """Move scores and positions [L,N,Hkv,C] as their slots are."""
    for move in moves:
        most = move.order.shape[2]
        for flat, blank in ((score[move.layer], 0), (position[move.layer], -1)):
            moved = np.take_along_axis(flat, move.order, 2)
            flat[:, :, :most] = np.where(move.stays, moved, blank)
            flat[:, :, most:] = blank


def _restore_side(views: SlotViews, score: Floats, position: Ordinals) -> None:
    size = position.shape[3]
    for mine, theirs, blank in ((views.score, score, 0), (views.position, position, -1)):
        mine[..., :size], mine[..., size:] = theirs, blank


def _copy_side(old: SlotViews, new: SlotViews) -> None:
    keep = min(old.score.shape[3], new.score.shape[3])
    new.score[..., :keep] = old.score[..., :keep]
    new.position[..., :keep] = old.position[..., :keep]
    if old.conv_state is not None and new.conv_state is not None:
        new.conv_state[:] = old.conv_state
