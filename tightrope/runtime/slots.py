"""The KV cache of one conversation: a fixed number of slots that the runtime owns.

Graphs read slots and answer which slot each new token goes to; `commit` alone writes. Nothing is
ever moved: a new token takes an empty slot or the slot of one that was given up, so the occupied
slots of a row and head are always the first ones. Capacity grows in steps with what is occupied,
never beyond the budget, so a short conversation does not pay for a long cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tightrope.interface import Dims

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

SMALLEST_CAPACITY = 64


@dataclass(frozen=True, slots=True)
class Update:
    """What one call of a decoder graph leaves to be committed.

    With in-LLM selection the layers differ in how many new tokens they saw: then key, value and
    target are lists over layers, otherwise they are stacked.
    """

    key: Floats | list[Floats]
    """[L,N,Hkv,S,D]"""
    value: Floats | list[Floats]
    target: npt.NDArray[np.int32] | list[npt.NDArray[np.int32]]
    """[L,N,Hkv,S], -1 for a token that is not kept"""
    next_score: Floats
    """[L,N,Hkv,C]"""
    next_position: npt.NDArray[np.int32]
    num_valid: Counts
    """Valid new tokens, [L,N]"""
    in_spare: bool = False
    """Scores and positions were written to the other side of `Slots.buffers` already."""


class Slots:
    """Keys, values, scores and positions of every layer, for N rows.

    Keys and values lie layer behind layer in flat arrays, so that one scatter commits all of them;
    `key` and `value` are views by layer, [N,Hkv,C,D]. Scores and positions are one array each,
    [L,N,Hkv,C], as wide as the largest layer.
    """

    def __init__(self, dims: Dims, rows: int) -> None:
        self.dims, self.rows = dims, rows
        layers, heads = dims.num_hidden_layers, dims.num_key_value_heads
        self.occupied: Counts = np.zeros((layers, rows, heads), np.int64)
        self.version = 0
        """Changes whenever the arrays are replaced: bindings to them are then stale."""
        self.capacity: Counts = np.zeros(layers, np.int64)
        self._allocate(np.full(layers, SMALLEST_CAPACITY, np.int64))

    def _allocate(self, capacity: Counts) -> None:
        layers, heads = self.dims.num_hidden_layers, self.dims.num_key_value_heads
        width = self.dims.head_dim
        lanes = self.rows * heads
        starts = np.concatenate([[0], np.cumsum(capacity * lanes)])
        total = int(starts[-1])
        self.capacity = capacity
        self._keys = np.zeros((total, width), np.float32)
        self._values = np.zeros((total, width), np.float32)
        wide = (2, layers, self.rows, heads, int(capacity.max()))
        self._scores = np.zeros(wide, np.float32)
        self._positions = np.full(wide, -1, np.int32)
        self.key, self.value = self._views(self._keys, starts), self._views(self._values, starts)
        self._side = 0
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

    @property
    def side(self) -> int:
        """Which of the two buffers of scores and positions is current, 0 or 1."""
        return self._side

    @property
    def score(self) -> Floats:
        """[L,N,Hkv,C]"""
        return self.buffers(self._side)[0]

    @property
    def position(self) -> npt.NDArray[np.int32]:
        """[L,N,Hkv,C], the ordinal of the token in each slot, -1 where it is empty."""
        return self.buffers(self._side)[1]

    def buffers(self, side: int) -> tuple[Floats, npt.NDArray[np.int32]]:
        """Scores and positions of one side: a call reads the current one, may write the other."""
        return self._scores[side], self._positions[side]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values that are allocated."""
        return self._keys.nbytes + self._values.nbytes

    def used(self, layer: int) -> int:
        """Slots in use at most over rows and heads: those past them are empty."""
        return int(self.occupied[layer].max())

    def make_room(self, new_tokens: Counts, budget: Counts) -> None:
        """Grow so that a call with `new_tokens` [L] fits under `budget` [L].

        Capacity grows by a quarter beyond what is needed, in steps of 64: growing then costs little
        per token, and a step attends over few slots that are empty. It never exceeds the budget.
        """
        needed = np.minimum(budget, self.occupied.max((1, 2)) + new_tokens)
        if (needed <= self.capacity).all():
            return
        step = SMALLEST_CAPACITY
        roomy = np.where(needed > step, -(-needed * 5 // (4 * step)) * step, step)
        wanted = np.where(needed > self.capacity, np.minimum(roomy, budget), self.capacity)
        self._resize(np.maximum(wanted, self.occupied.max((1, 2))))

    def _resize(self, capacity: Counts) -> None:
        old_key, old_value, score, position = self.key, self.value, self.score, self.position
        self._allocate(capacity)
        for layer in range(len(capacity)):
            keep = min(old_key[layer].shape[2], int(capacity[layer]))
            for new, old in (
                (self.key, old_key),
                (self.value, old_value),
                (self.score, score),
                (self.position, position),
            ):
                new[layer][:, :, :keep] = old[layer][:, :, :keep]

    def commit(self, update: Update, budget: Counts) -> None:
        """Write the rows of one call to their slots; `budget` [L] is what the call ran under."""
        if isinstance(update.target, list):
            for layer, target in enumerate(update.target):
                self._scatter(self._base[layer], target, update.key[layer], update.value[layer])
        else:
            assert isinstance(update.key, np.ndarray) and isinstance(update.value, np.ndarray)
            self._scatter(self._base, update.target, update.key, update.value)
        if update.in_spare:
            self._side = 1 - self._side
        else:
            np.copyto(self.score, update.next_score)
            np.copyto(self.position, update.next_position)
        grown = self.occupied + update.num_valid[:, :, None]
        # A row without new tokens stays as it is, even above a budget that was lowered.
        limit = np.maximum(budget[:, None, None], self.occupied)
        np.minimum(grown, limit, out=self.occupied)

    def _scatter(self, base: Counts, target: Array, key: Array, value: Array) -> None:
        """key and value [..,S,D] to the flat rows base[..] + target[..,S]; -1 goes nowhere."""
        rows = base[..., None] + target
        if (target < 0).any():
            kept = target >= 0
            rows, key, value = rows[kept], key[kept], value[kept]
        self._keys[rows] = key
        self._values[rows] = value

    def trim(self, budget: Counts, sinks: int, recent: int) -> None:
        """Give up the lowest scores until each layer holds `budget` [L] at most.

        The ranking is the graphs' own; what stays moves to the first slots.
        """
        if (self.occupied.max((1, 2)) <= budget).all():
            return
        for layer in np.flatnonzero(self.occupied.max((1, 2)) > budget):
            limit = int(budget[layer])
            position = self.position[layer]
            newest = position.max((1, 2), keepdims=True)
            safe = (position < sinks) | (position > newest - recent)
            rank_by = np.where(safe, np.inf, self.score[layer])
            rank_by = np.where(position < 0, -np.inf, rank_by)
            best = np.argsort(rank_by, -1, kind="stable")[:, :, -limit:]
            best = np.sort(best, -1)
            for views in (self.key, self.value):
                views[layer][:, :, :limit] = np.take_along_axis(views[layer], best[..., None], 2)
                views[layer][:, :, limit:] = 0
            for flat, blank in ((self.score[layer], 0), (position, -1)):
                flat[:, :, :limit] = np.take_along_axis(flat, best, 2)
                flat[:, :, limit:] = blank
            self.occupied[layer] = np.minimum(self.occupied[layer], limit)
        self._resize(np.minimum(self.capacity, np.maximum(budget, 1)))

    def fork(self, rows: int) -> Slots:
        """A copy of this one-row cache for `rows` answers to one prompt."""
        assert self.rows == 1, "one prefill is forked"
        copy = Slots.__new__(Slots)
        copy.dims, copy.rows, copy.version = self.dims, rows, 0
        copy.occupied = np.repeat(self.occupied, rows, 1)
        copy._allocate(self.capacity.copy())
        for mine, theirs in (
            (copy.key, self.key),
            (copy.value, self.value),
            (copy.score, self.score),
            (copy.position, self.position),
        ):
            for to, source in zip(mine, theirs, strict=True):
                to[:] = source
        return copy
