"""The KV cache of one conversation: a fixed number of slots that the runtime owns.

Graphs read slots and answer which slot each new token goes to; `commit` alone writes. Nothing is
ever moved within a call: a new token takes an empty slot or the slot of one that was given up, so
the occupied slots of a row and head are always the first ones. Capacity grows in steps with what is
occupied, so a short conversation does not pay for a long cache. The arrays are a `Storage`, which
may lie on a device: only what ranks and cuts asks it for scores and positions. It also holds the
states of layers without slots: a commit replaces them, and a mark keeps a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Array, Counts, Floats, Indices, Ordinals
from tightrope.interface.calls import Update
from tightrope.interface.tensors import Dims
from tightrope.plugins.slot_attention.reference import leave
from tightrope.plugins.slot_attention.scores import PolicyNumbers
from tightrope.runtime.storage import SMALLEST_CAPACITY, Move, SlotViews, Storage

MakeStorage = Callable[[int, Counts], Storage]
"""From rows and capacity [L]."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What was in the slots at one moment."""

    occupied: Counts
    score: Floats
    position: Ordinals
    conv_state: Array | None


class Slots:
    """Which slots of a storage are occupied, by what, and how many there are."""

    def __init__(self, dims: Dims, rows: int, make_storage: MakeStorage) -> None:
        self.dims, self.rows = dims, rows
        layers, heads = dims.num_hidden_layers, dims.num_key_value_heads
        self.occupied: Counts = np.zeros((layers, rows, heads), np.int64)
        """[L,N,Hkv]"""
        self.storage = make_storage(rows, np.full(layers, SMALLEST_CAPACITY, np.int64))
        self.side = 0
        """Of the storage's scores and positions, the current one; every commit changes it."""

    @property
    def capacity(self) -> Counts:
        """Slots of each layer that are allocated, [L]."""
        return self.storage.capacity

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values that are allocated."""
        return self.storage.nbytes

    @property
    def ranking_nbytes(self) -> int:
        """Bytes of scores and positions, both of which exist twice."""
        return 2 * 2 * 4 * self.occupied.size * int(self.capacity.max())

    @property
    def score(self) -> Floats:
        """[L,N,Hkv,C]"""
        return self.storage.ranking(self.side)[0]

    @property
    def position(self) -> Ordinals:
        """[L,N,Hkv,C], the ordinal of the token in each slot, -1 where it is empty."""
        return self.storage.ranking(self.side)[1]

    def views(self) -> SlotViews:
        """All slots, for a call that reads them where they lie."""
        return self.storage.views(self.side)

    def occupied_views(self) -> SlotViews:
        """Keys and values up to the last occupied slot of each layer: those past it are empty."""
        return self.storage.views(self.side, self.occupied.max((1, 2)))

    def room(self, most: Indices) -> int:
        """Slots that are left in the fullest layer and head, of `most` [L,Hkv]."""
        return int((most - self.occupied.max(1)).min())

    def make_room(self, new_tokens: Counts, most: Counts) -> None:
        """Grow so that a call with `new_tokens` [L] finds room, up to `most` [L] slots."""
        needed = np.minimum(most, self.occupied.max((1, 2)) + new_tokens)
        if (needed <= self.capacity).all():
            return
        roomy = np.minimum(self.storage.roomy(needed), most)
        self._resize(np.where(needed > self.capacity, roomy, self.capacity))

    def shrink(self, most: Counts) -> None:
        """Give back what is allocated beyond `most` [L] and holds nothing."""
        wanted = np.maximum(np.minimum(self.capacity, most), 1)
        if (wanted < self.capacity).any():
            self._resize(wanted)

    def _resize(self, capacity: Counts) -> None:
        capacity = np.maximum(capacity, self.occupied.max((1, 2)))
        self.storage = self.storage.copied(self.rows, capacity, self.side)
        self.side = 0

    def commit(self, update: Update) -> None:
        """Write the rows of one call to the slots that it chose."""
        self.side = 1 - self.side
        self.storage.write(update, self.side)
        target = update.target
        if isinstance(target, list):
            top = np.stack([layer.max(-1) for layer in target])
        else:
            top = target.max(-1)
        # Slots are taken from the lowest up, those given up in the same call first.
        np.maximum(self.occupied, top + 1, out=self.occupied)

    def trim(self, kv_budget: Indices, policy: Floats) -> None:
        """Give up the lowest scores until each layer and head holds `kv_budget` [L,Hkv] at most.

        policy: [L,8]. The ranking is the graphs' own; what stays moves to the first slots.
        """
        full = np.flatnonzero((self.occupied > kv_budget[:, None]).any((1, 2)))
        if not len(full):
            return
        moves, (scores, positions) = list[Move](), self.storage.ranking(self.side)
        for layer in full:
            position, numbers = positions[layer], PolicyNumbers(*policy[layer])
            newest = position.max((1, 2))[:, None]
            leaves = leave(scores[layer], position, newest, kv_budget[layer], numbers)
            kept = ~leaves & (position >= 0)
            self.occupied[layer] = kept.sum(-1)
            most = int(self.occupied[layer].max())
            order = np.argsort(~kept, -1, kind="stable")[:, :, :most]
            moves.append(Move(int(layer), order, np.take_along_axis(kept, order, 2)))
        self.storage.compact(self.side, moves)

    def _conv_state(self) -> Array | None:
        return self.views().conv_state if self.dims.conv_layers else None

    def mark(self) -> Mark:
        """A moment to which `rollback` can return."""
        score, position = self.storage.ranking(self.side)
        state = self._conv_state()
        kept = None if state is None else state.copy()
        return Mark(self.occupied.copy(), score.copy(), position.copy(), kept)

    def rollback(self, mark: Mark) -> None:
        """Cut off what came since `mark`; raises ValueError if a slot was given up meanwhile."""
        position = self.position[..., : mark.position.shape[3]]
        held = mark.position >= 0
        if position.shape != mark.position.shape or (position != mark.position)[held].any():
            raise ValueError("slots were given up since the mark: go back to a fork instead")
        self.storage.restore(self.side, mark.score, mark.position)
        self.occupied[:] = mark.occupied
        state = self._conv_state()
        if state is not None and mark.conv_state is not None:
            state[:] = mark.conv_state

    def fork(self, rows: int, capacity: Counts | None = None) -> Slots:
        """A copy of this one-row cache for `rows` answers to one prompt.

        capacity: [L], what is allocated if not as much as here; all that is occupied has to fit.
        """
        assert self.rows == 1, "one prefill is forked"
        copy = Slots.__new__(Slots)
        copy.dims, copy.rows, copy.side = self.dims, rows, 0
        copy.occupied = np.repeat(self.occupied, rows, 1)
        wanted = self.capacity if capacity is None else capacity
        copy.storage = self.storage.copied(rows, wanted.copy(), self.side)
        return copy
