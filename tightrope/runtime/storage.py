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
from tightrope.interface.tensors import Dims


@dataclass(frozen=True, slots=True)
class SlotViews:
    """What a graph reads of slots, see `interface.calls.SlotArrays`."""

    keys: Sequence[Array]
    values: Sequence[Array]
    score: Floats
    position: Ordinals
    conv_state: Array | None = None


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
        """Everything with one side's scores; keys and values cut behind `used` [L] slots."""

    def write(self, update: Update, side: int) -> None:
        """Put a call's rows where its targets say, and its scores and positions on `side`."""

    def compact(self, layer: int, side: int, order: Indices, stays: Flags) -> None:
        """Move the slots `order` [N,Hkv,M] of a layer to its first places; empty what stays not."""

    def copied(self, rows: int, capacity: Counts, side: int) -> Storage:
        """A new storage for `rows` rows, whose side 0 holds what `side` held, as far as it fits.

        One row is repeated.
        """


class NumpyStorage:
    """In the memory of the host.

    Keys and values lie layer behind layer in flat arrays, so that one scatter writes all of them.
    """

    def __init__(
        self, dims: Dims, rows: int, capacity: Counts, dtype: npt.DTypeLike = np.float32
    ) -> None:
        self._dims, self._rows, self._dtype = dims, rows, dtype
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
        rows = base[..., None] + target
        if (target < 0).any():
            kept = target >= 0
            rows, key, value = rows[kept], key[kept], value[kept]
        self._flat[0][rows] = key
        self._flat[1][rows] = value

    def compact(self, layer: int, side: int, order: Indices, stays: Flags) -> None:
        views, most = self._sides[side], order.shape[2]
        for array in (views.keys[layer], views.values[layer]):
            moved = np.take_along_axis(array, order[..., None], 2)
            array[:, :, :most] = np.where(stays[..., None], moved, 0)
            array[:, :, most:] = 0
        _compact_side(views, layer, order, stays)

    def copied(self, rows: int, capacity: Counts, side: int) -> NumpyStorage:
        copy = NumpyStorage(self._dims, rows, capacity, self._dtype)
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

    def write(self, update: Update, side: int) -> None:
        _write_side(self._sides[side], update)

    def compact(self, layer: int, side: int, order: Indices, stays: Flags) -> None:
        _compact_side(self._sides[side], layer, order, stays)

    def copied(self, rows: int, capacity: Counts, side: int) -> NullStorage:
        copy = NullStorage(self._dims, rows, capacity)
        _copy_side(self._sides[side], copy._sides[0])
        return copy


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


def _compact_side(views: SlotViews, layer: int, order: Indices, stays: Flags) -> None:
    for flat, blank in ((views.score[layer], 0), (views.position[layer], -1)):
        moved = np.take_along_axis(flat, order, 2)
        flat[:, :, : order.shape[2]] = np.where(stays, moved, blank)
        flat[:, :, order.shape[2] :] = blank


def _copy_side(old: SlotViews, new: SlotViews) -> None:
    keep = min(old.score.shape[3], new.score.shape[3])
    new.score[..., :keep] = old.score[..., :keep]
    new.position[..., :keep] = old.position[..., :keep]
    if old.conv_state is not None and new.conv_state is not None:
        new.conv_state[:] = old.conv_state
