"""What a request makes the machine do, from the numbers of its tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Counts
from tightrope.bundle import Manifest
from tightrope.latency import PrefillCall, SourceImage, Workload
from tightrope.runtime.conversation import Conversation, most_slots
from tightrope.runtime.demand import Demand, demand_of
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.settings import Settings
from tightrope.runtime.slots import Slots
from tightrope.runtime.storage import NullStorage


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A request's work and what it leaves in the slots."""

    work: Workload
    demand: Demand
    occupied_slots: int
    """At its end, per KV head, in the layer that holds most."""
    slot_bytes: int
    """Keys and values allocated at its end."""


def work_of(
    loaded: Loaded,
    num_ids: int,
    images: Sequence[SourceImage],
    settings: Settings,
    completion_tokens: int,
) -> Counted:
    """The work of a request of its own, its answer `completion_tokens` long if the slots hold it.

    num_ids: of the prompt, images as one each. Raises InputError where the slots cannot hold it.
    """
    demand = demand_of(loaded, num_ids, len(images), settings)
    conversation = Conversation(loaded)
    seen = conversation.check_fits(demand.length, demand.visual, demand.inside, settings)
    slots = _empty_slots(loaded)
    calls = _prefill(slots, seen, demand.length, loaded.manifest, settings)
    context = float(slots.occupied.mean())
    room = settings.room(slots, demand.unpruned)
    steps = min(completion_tokens - 1, room)
    _fill(slots, steps, settings)
    tower, inside = settings.link("tower"), settings.link("inside")
    small = conversation.slots
    return Counted(
        work=Workload(
            text_tokens=num_ids,
            images=tuple(images),
            resolution=settings.resolution if images else None,
            visual_tokens=demand.available,
            visual_tokens_kept=demand.kept,
            selector=tower.method if tower and demand.kept < demand.available else None,
            schedule=inside.method if inside and demand.inside < demand.visual else None,
            prefill=calls,
            context=context,
            most_context=float(settings.kv_budget.mean()),
            evicts=settings.evicts,
            completion_tokens=steps + 1,
        ),
        demand=demand,
        occupied_slots=int(slots.occupied.max()),
        slot_bytes=int(small.nbytes * slots.capacity.sum() / small.capacity.sum()),
    )


def _empty_slots(loaded: Loaded) -> Slots:
    """Books without memory."""
    dims = loaded.manifest.dims
    return Slots(dims, 1, lambda rows, capacity: NullStorage(dims, rows, capacity))


def _prefill(
    slots: Slots, seen: Counts, length: int, manifest: Manifest, settings: Settings
) -> tuple[PrefillCall, ...]:
    """The calls that read `length` tokens, as `Conversation.read` makes them.

    seen: [L], those of all tokens that a layer sees.
    """
    chunk, budget, calls = manifest.prefill_chunk, settings.kv_budget, []
    for start in range(0, length, chunk):
        new = np.minimum(seen, min(chunk, length - start))
        before = slots.occupied.max((1, 2))
        slots.make_room(new, most_slots(slots, new, settings, manifest.slots))
        after = np.minimum(before + new, slots.capacity)
        kept = np.minimum(after, budget.max(1))
        slots.occupied[:] = kept[:, None, None]
        calls.append(
            PrefillCall(
                tokens=float(new.mean()),
                occupied=float(before.mean()),
                given_up=float((after - kept).mean()),
            )
        )
    slots.shrink(budget.max(1))
    return tuple(calls)


def _fill(slots: Slots, steps: int, settings: Settings) -> None:
    """Fill `slots` by the tokens of `steps` steps."""
    budget = settings.kv_budget
    left, most, one_each = steps, budget.max(1), np.ones(len(budget), np.int64)
    while left > 0 and (slots.occupied.max((1, 2)) < most).any():
        slots.make_room(one_each, most)
        free = int((slots.capacity - slots.occupied.max((1, 2))).min())
        new = min(left, max(1, free))
        slots.occupied[:] = np.minimum(slots.occupied + new, budget[:, None])
        left -= new
