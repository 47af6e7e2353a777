"""The KV cache of one conversation: a fixed number of slots that the runtime owns.

Graphs read slots and answer which slot each new token goes to; `commit` alone writes. Nothing is
ever moved within a call: a new token takes an empty slot or the slot of one that was given up, so
the occupied slots of a row and head are always the first ones. Capacity grows in steps with what is
occupied, so a short conversation does not pay for a long cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Array, Counts, Floats, Indices, Ordinals
from tightrope.interface.calls import Update
from tightrope.interface.tensors import Dims
from tightrope.plugins.slot_attention.scores import PolicyNumbers

SMALLEST_CAPACITY = 64


@dataclass(frozen=True, slots=True)
class SlotViews:
    """What a graph reads of slots, see `interface.calls.SlotArrays`."""

    keys: Sequence[Array]
    values: Sequence[Array]
    score: Floats
    position: Ordinals


class Slots:
    """Keys, values, scores and positions of every layer, for N rows.

    Keys and values lie layer behind layer in flat arrays, so that one scatter commits all of them;
    `keys` and `values` are views by layer, [N,Hkv,C,D]. Scores and positions are one array each,
    [L,N,Hkv,C], as wide as the largest layer. There are two of each, which change places at every
    commit: a call reads the current side and may write the other.
    """

    def __init__(self, dims: Dims, rows: int) -> None:
        self.dims, self.rows = dims, rows
        layers, heads = dims.num_hidden_layers, dims.num_key_value_heads
        self.occupied: Counts = np.zeros((layers, rows, heads), np.int64)
        """[L,N,Hkv]"""
        self.version = 0
        """Changes whenever the arrays are replaced: bindings to them are then stale."""
        self.capacity: Counts = np.zeros(layers, np.int64)
        self._allocate(np.full(layers, SMALLEST_CAPACITY, np.int64))

    def _allocate(self, capacity: Counts) -> None:
        layers, heads = self.dims.num_hidden_layers, self.dims.num_key_value_heads
        lanes = self.rows * heads
        starts = np.concatenate([[0], np.cumsum(capacity * lanes)])
        self.capacity = capacity
        self._keys, self._values = np.zeros((2, int(starts[-1]), self.dims.head_dim), np.float32)
        self.keys, self.values = self._views(self._keys, starts), self._views(self._values, starts)
        wide = (layers, self.rows, heads, int(capacity.max()))
        scores = [np.zeros(wide, np.float32) for _ in range(2)]
        positions = [np.full(wide, -1, np.int32) for _ in range(2)]
        self._sides = tuple(
            SlotViews(self.keys, self.values, score, position)
            for score, position in zip(scores, positions, strict=True)
        )
        self.side = 0
        lane = np.arange(lanes).reshape(self.rows, heads)
        # First row of each layer, batch row and head in the flat arrays.
        self._base: Counts = starts[:layers, None, None] + lane * capacity[:, None, None]
        self.version += 1

    def _views(self, flat: Array, starts: Counts) -> list[Array]:
        heads = self.dims.num_key_value_heads
        return [
            flat[start:end].reshape(self.rows, heads, size, *flat.shape[1:])
            for start, end, size in zip(starts[:-1], starts[1:], self.capacity, strict=True)
        ]

    def views(self, side: int) -> SlotViews:
        """Everything, with the scores and positions of one side."""
        return self._sides[side]

    def occupied_views(self) -> SlotViews:
        """Keys and values up to the last occupied slot of each layer: those past it are empty."""
        used = self.occupied.max((1, 2))
        keys, values = (
            [array[:, :, :count] for array, count in zip(arrays, used, strict=True)]
            for arrays in (self.keys, self.values)
        )
        return SlotViews(keys, values, self.score, self.position)

    @property
    def score(self) -> Floats:
        """[L,N,Hkv,C]"""
        return self._sides[self.side].score

    @property
    def position(self) -> Ordinals:
        """[L,N,Hkv,C], the ordinal of the token in each slot, -1 where it is empty."""
        return self._sides[self.side].position

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values that are allocated."""
        return self._keys.nbytes + self._values.nbytes

    def make_room(self, new_tokens: Counts, most: Counts) -> None:
        """Grow so that a call with `new_tokens` [L] finds room, up to `most` [L] slots.

        Capacity grows by a quarter beyond what is needed, in steps of 64: growing then costs little
        per token, and a step attends over few slots that are empty.
        """
        needed = np.minimum(most, self.occupied.max((1, 2)) + new_tokens)
        if (needed <= self.capacity).all():
            return
        step = SMALLEST_CAPACITY
        roomy = np.where(needed > step, -(-needed * 5 // (4 * step)) * step, step)
        self._resize(np.where(needed > self.capacity, np.minimum(roomy, most), self.capacity))

    def shrink(self, most: Counts) -> None:
        """Give back what is allocated beyond `most` [L] and holds nothing."""
        wanted = np.minimum(self.capacity, np.maximum(most, self.occupied.max((1, 2))))
        if (wanted < self.capacity).any():
            self._resize(np.maximum(wanted, 1))

    def _resize(self, capacity: Counts) -> None:
        old = SlotViews(self.keys, self.values, self.score, self.position)
        self._allocate(np.maximum(capacity, self.occupied.max((1, 2))))
        for layer in range(len(capacity)):
            keep = min(old.keys[layer].shape[2], int(self.capacity[layer]))
            for new, before in zip(_arrays(self), _arrays(old), strict=True):
                new[layer][:, :, :keep] = before[layer][:, :, :keep]

    def commit(self, update: Update) -> None:
        """Write the rows of one call to the slots that it chose."""
        if isinstance(update.target, list):
            tops = []
            for layer, target in enumerate(update.target):
                self._scatter(self._base[layer], target, update.key[layer], update.value[layer])
                tops.append(target.max(-1))
            top = np.stack(tops)
        else:
            assert isinstance(update.key, np.ndarray) and isinstance(update.value, np.ndarray)
            self._scatter(self._base, update.target, update.key, update.value)
            top = update.target.max(-1)
        spare = self._sides[1 - self.side]
        for mine, theirs in (
            (spare.score, update.next_score),
            (spare.position, update.next_position),
        ):
            if mine is not theirs:
                np.copyto(mine, theirs)
        self.side = 1 - self.side
        # Slots are taken from the lowest up, those given up in the same call first.
        np.maximum(self.occupied, top + 1, out=self.occupied)

    def _scatter(self, base: Counts, target: Array, key: Array, value: Array) -> None:
        """key and value [..,S,D] to the flat rows base[..] + target[..,S]; -1 goes nowhere."""
        rows = base[..., None] + target
        if (target < 0).any():
            kept = target >= 0
            rows, key, value = rows[kept], key[kept], value[kept]
        self._keys[rows] = key
        self._values[rows] = value

    def trim(self, kv_budget: Indices, policy: Floats) -> None:
        """Give up the lowest scores until each layer and head holds `kv_budget` [L,Hkv] at most.

        policy: [L,8]. The ranking is the graphs' own; what stays moves to the first slots.
        """
        over = (self.occupied > kv_budget[:, None]).any((1, 2))
        for layer in np.flatnonzero(over):
            score, position = self.score[layer], self.position[layer]
            numbers = PolicyNumbers(*policy[layer])
            newest = position.max((1, 2), keepdims=True)
            safe = (position < numbers.sinks) | (position > newest - numbers.recent)
            rank_by = np.where(safe, np.inf, score)
            rank_by = np.where(position < 0, -np.inf, rank_by)
            rank = np.argsort(np.argsort(rank_by, -1, kind="stable"), -1)
            kept = (rank >= rank.shape[-1] - kv_budget[layer][:, None]) & (position >= 0)
            self.occupied[layer] = kept.sum(-1)
            most = int(self.occupied[layer].max())
            order = np.argsort(~kept, -1, kind="stable")[:, :, :most]
            stays = np.take_along_axis(kept, order, 2)
            for views in (self.keys, self.values):
                moved = np.take_along_axis(views[layer], order[..., None], 2)
                views[layer][:, :, :most] = np.where(stays[..., None], moved, 0)
                views[layer][:, :, most:] = 0
            for flat, blank in ((score, 0), (position, -1)):
                moved = np.take_along_axis(flat, order, 2)
                flat[:, :, :most] = np.where(stays, moved, blank)
                flat[:, :, most:] = blank

    def fork(self, rows: int) -> Slots:
        """A copy of this one-row cache for `rows` answers to one prompt."""
        assert self.rows == 1, "one prefill is forked"
        copy = Slots.__new__(Slots)
        copy.dims, copy.rows, copy.version = self.dims, rows, 0
        copy.occupied = np.repeat(self.occupied, rows, 1)
        copy._allocate(self.capacity.copy())
        for mine, theirs in zip(_arrays(copy), _arrays(self), strict=True):
            for to, source in zip(mine, theirs, strict=True):
                to[:] = source
        return copy


def _arrays(slots: Slots | SlotViews) -> tuple[Sequence[Array], ...]:
    """All that slots hold, each indexed by layer first."""
    return slots.keys, slots.values, slots.score, slots.position  # type: ignore[return-value]
