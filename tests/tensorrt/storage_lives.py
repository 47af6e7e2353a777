"""Slots on the device beside slots on the host, through the same random life."""

from __future__ import annotations

from typing import Any

import numpy as np

from tightrope.interface.calls import Update
from tightrope.interface.tensors import NEXT_POSITION, NEXT_SCORE, SLOT_POSITION, SLOT_SCORE
from tightrope.runtime.backends.tensorrt.arena import SlotMemory
from tightrope.runtime.backends.tensorrt.driver import Device
from tightrope.runtime.backends.tensorrt.storage import DeviceStorage, DeviceUpdate, NewRows
from tightrope.runtime.storage import NumpyStorage

MOST = 150


class Life:
    """Two sets of slots that are to stay equal."""

    def __init__(self, slots: Any, memory: SlotMemory, device: Device, seed: int) -> None:
        dims, in_int8 = memory.dims, memory.rounds is not None
        kind, kv_cache = (np.float32, "int8") if in_int8 else (np.float16, "float")
        self.memory, self.device, self.rng = memory, device, np.random.default_rng(seed)
        self.theirs = slots(dims, 1, lambda rows, size: DeviceStorage(memory, rows, size))
        self.ours = slots(
            dims, 1, lambda rows, size: NumpyStorage(dims, rows, size, kind, kv_cache)
        )
        self.held: list[Any] = []
        self.ordinal = 0

    def both(self) -> tuple[Any, Any]:
        return self.ours, self.theirs

    def commit(self, length: int) -> None:
        """New tokens behind the occupied slots, some of them nowhere; scores are drawn anew."""
        dims, rows = self.memory.dims, self.ours.rows
        lanes = (dims.num_hidden_layers, rows, dims.num_key_value_heads)
        needed = np.full(dims.num_hidden_layers, length)
        for slots in self.both():
            slots.make_room(needed, np.full(dims.num_hidden_layers, MOST))
        key, value = self.rng.normal(size=(2, *lanes, length, dims.head_dim)).astype(np.float16)
        kept = self.rng.random((*lanes, length)) < 0.9
        place = self.ours.occupied[..., None] + np.cumsum(kept, -1) - 1
        target = np.where(kept & (place < MOST), place, -1).astype(np.int32)
        wide = (*lanes, max(int(slots.capacity.max()) for slots in self.both()))
        score = self.rng.random(wide).astype(np.float32)
        position = np.full(wide, -1, np.int32)
        occupied = np.maximum(self.ours.occupied, target.max(-1) + 1)
        taken = np.arange(wide[-1]) < occupied[..., None]
        position[taken] = self.rng.permutation(taken.sum()).astype(np.int32)
        score[~taken] = 0
        size = int(self.ours.capacity.max())
        self.ours.commit(Update(key, value, target, score[..., :size], position[..., :size]))
        self.theirs.commit(self.on_the_device(key, value, target, score, position))
        self.ordinal += length

    def on_the_device(self, key: Any, value: Any, target: Any, score: Any, position: Any) -> Any:
        """As if an engine had written it: rows to memory, scores to the spare side."""
        storage = self.theirs.storage
        with self.device:
            memory = [self.device.allocate(each.nbytes, "a test") for each in (key, value, target)]
            for there, array in zip(memory, (key, value, target), strict=True):
                self.device.upload(there.address, array)
            bindings, size = storage.arena.bindings(self.theirs.side), int(storage.capacity.max())
            for name, array in ((NEXT_SCORE, score), (NEXT_POSITION, position)):
                self.device.upload(bindings[name], np.ascontiguousarray(array[..., :size]))
        self.held += memory
        steps = [array.nbytes // len(array) for array in (key, value, target)]
        places = [
            [there.address + layer * step for layer in range(len(key))]
            for there, step in zip(memory, steps, strict=True)
        ]
        lengths = [target.shape[-1]] * len(key)
        rows = NewRows(places[0], places[1], places[2], lengths)
        nothing = np.empty(0, np.float32), np.empty(0, np.int32)
        side = 1 - self.theirs.side
        return DeviceUpdate([], [], target, *nothing, rows=rows, side=side)

    def trim(self) -> None:
        shape = self.ours.occupied.shape
        budget = self.rng.integers(20, 80, (shape[0], shape[2]))
        policy = np.tile(np.array([1, 1, 0, 0, 0, 0, 2, 5], np.float32), (shape[0], 1))
        for slots in self.both():
            slots.trim(budget, policy)

    def shrink(self) -> None:
        for slots in self.both():
            slots.shrink(np.full(len(self.ours.capacity), 40))

    def mark_and_return(self) -> None:
        marks = [slots.mark() for slots in self.both()]
        for slots, mark in zip(self.both(), marks, strict=True):
            slots.rollback(mark)

    def fork(self) -> None:
        rows = 2 if self.ours.rows == 1 else 1
        if rows == 2:
            self.ours, self.theirs = self.ours.fork(rows), self.theirs.fork(rows)

    def difference(self) -> str:
        """What of the occupied slots is not alike; of the others that they are empty."""
        for name, ours, theirs in zip(
            ("occupied", SLOT_SCORE, SLOT_POSITION),
            (self.ours.occupied, self.ours.score, self.ours.position),
            (self.theirs.occupied, self.theirs.score, self.theirs.position),
            strict=True,
        ):
            size = min(ours.shape[-1], theirs.shape[-1])
            if not np.array_equal(ours[..., :size], theirs[..., :size]):
                return name
        mine, other = (slots.occupied_views() for slots in self.both())
        for name in ("keys", "values"):
            pairs = zip(getattr(mine, name), getattr(other, name), strict=True)
            for layer, (ours, theirs) in enumerate(pairs):
                if not np.array_equal(ours, theirs):
                    return f"{name} of layer {layer}"
        return ""


def live(slots: Any, memory: SlotMemory, device: Device, seed: int) -> str:
    """ "" if all went alike, else what differed after which of the random steps."""
    life = Life(slots, memory, device, seed)
    done = []
    for _ in range(14):
        step = life.rng.choice(["commit", "commit", "one", "trim", "shrink", "mark", "fork"])
        done.append(str(step))
        if step == "commit":
            life.commit(int(life.rng.integers(2, 40)))
        elif step == "one":
            life.commit(1)
        else:
            {
                "trim": life.trim,
                "shrink": life.shrink,
                "mark": life.mark_and_return,
                "fork": life.fork,
            }[step]()
        if found := life.difference():
            return f"{found} after {', '.join(done)}"
    return ""
