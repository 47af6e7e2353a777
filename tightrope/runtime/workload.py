"""What a request makes the machine do, from the numbers of its tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tightrope.arrays import Counts
from tightrope.latency import PrefillCall, SourceImage, Workload
from tightrope.plugins.slot_attention.policies import scoring
from tightrope.runtime.begun import Begun, begun_under, unread
from tightrope.runtime.conversation import Conversation, most_slots
from tightrope.runtime.cuts import cuts_of, parts_of
from tightrope.runtime.demand import Demand, demand_of
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.marks import UNCUT, Beginnings, Cut
from tightrope.runtime.settings import Settings
from tightrope.runtime.slots import Slots
from tightrope.runtime.storage import NullStorage


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A request's work and what it leaves in the slots."""

    work: Workload
    demand: Demand
    cached_tokens: int
    """Of the prompt, unpruned, in slots that are kept, or that a conversation holds."""
    _settings: Settings
    _slots: Slots
    """Books of them when the first token comes, until somebody asks for the last."""
    _bytes_each: float
    """Of a slot, in all of its heads."""

    @cached_property
    def _ended(self) -> Slots:
        _fill(self._slots, self.work.steps, self._settings)
        return self._slots

    @property
    def occupied_slots(self) -> int:
        """At its end, per KV head, in the layer that holds most."""
        return int(self._ended.occupied.max())

    @property
    def slot_bytes(self) -> int:
        """Keys and values allocated at its end."""
        return round(self._bytes_each * float(self._ended.capacity.sum()))


ENDLESS = 1 << 30
"""Tokens of an answer that ends where the slots are full."""


def work_of(
    loaded: Loaded,
    num_ids: int,
    images: Sequence[SourceImage],
    settings: Settings,
    completion_tokens: int,
    beginnings: Beginnings = UNCUT,
    begun: Begun | None = None,
) -> Counted:
    """The work of a request, its answer `completion_tokens` long if the slots hold it.

    num_ids: of the prompt, images as one each. beginnings: of the prompt. begun: what the slots of
    its conversation hold.
    Raises InputError where the slots cannot hold it.
    """
    images, begun = unread(images, begun, settings), begun_under(begun, settings)
    sizes = [(image.width, image.height) for image in images]
    new_ids = num_ids if begun is None else num_ids - begun.num_ids
    demand = demand_of(loaded, new_ids, sizes, settings)
    conversation, slots = Conversation(loaded), _empty_slots(loaded)
    cuts = cuts_of(loaded, beginnings.marks, sizes, settings) if begun is None else ()
    if begun is not None:
        conversation.next_ordinal = begun.ordinal
        for books in (conversation.slots, slots):
            _occupy(books, begun, settings)
    head, kept = cuts[-1].place if cuts else 0, _kept(cuts, beginnings, settings)
    seen = conversation.check_fits(demand.length, demand.visual, demand.inside, settings, head)
    chunk = loaded.chunks.under(settings, int(slots.occupied.max()))
    first = num_ids - new_ids
    wholes = _wholes([x - first for x in beginnings.wholes if x >= first], demand.kept)
    parts = parts_of(demand.length, chunk, [cut.place for cut in cuts], wholes)
    calls = _prefill(slots, seen, parts, loaded.manifest.slots, settings)
    known = sum(part.stop <= kept.place for part in parts) if kept else 0
    context = float(slots.occupied.mean())
    room = settings.room(slots, conversation.next_ordinal + demand.unpruned)
    steps = min(completion_tokens - 1, room)
    tower, inside = settings.link("tower"), settings.link("inside")
    small = conversation.slots
    return Counted(
        work=Workload(
            text_tokens=num_ids,
            images=tuple(images),
            resolution=settings.resolution if images else None,
            visual_tokens=_mean(demand.available),
            visual_tokens_kept=_mean(demand.kept),
            selector=tower.method if tower and demand.kept != demand.available else None,
            schedule=inside.method if inside and demand.inside < demand.visual else None,
            prefill=calls[known:],
            context=context,
            most_context=float(settings.kv_budget.mean()),
            evicts=settings.evicts,
            completion_tokens=steps + 1,
        ),
        demand=demand,
        cached_tokens=kept.ordinal if kept else conversation.next_ordinal,
        _settings=settings,
        _slots=slots,
        _bytes_each=small.nbytes / float(small.capacity.sum()),
    )


def _wholes(places: Sequence[int], kept: Sequence[int]) -> list[slice]:
    """Where images stand that no call may end inside; each is one run of visual tokens."""
    found, grown = [], 0
    for place, count in zip(places, kept, strict=False):  # a placeholder without image is text
        found.append(slice(place + grown, place + grown + count))
        grown += count - 1
    return found


def _mean(counts: Sequence[int]) -> float:
    return sum(counts) / max(1, len(counts))


def _empty_slots(loaded: Loaded) -> Slots:
    """Books without memory."""
    dims = loaded.manifest.dims
    return Slots(dims, 1, lambda rows, capacity: NullStorage(dims, rows, capacity))


def _occupy(slots: Slots, begun: Begun, settings: Settings) -> None:
    """What a conversation holds when a turn under these settings begins to read."""
    held = np.array(begun.occupied)[:, None]
    slots.occupied[:] = np.minimum(held, settings.kv_budget)[:, None]


def _kept(cuts: Sequence[Cut], beginnings: Beginnings, settings: Settings) -> Cut | None:
    """The last of the cuts up to which slots are kept."""
    scored = scoring(settings.policy)
    kept = [cut for cut in cuts if (cut.num_ids, scored) in beginnings.kept]
    return kept[-1] if kept else None


def _prefill(
    slots: Slots, seen: Counts, parts: Sequence[slice], available: int, settings: Settings
) -> tuple[PrefillCall, ...]:
    """The calls that read a prompt in these parts, as `Conversation.read` makes them.

    seen: [L], those of all tokens that a layer sees. available: slots of the bundle.
    """
    budget, calls = settings.kv_budget, []
    for part in parts:
        # A schedule leaves tokens out in the last call alone, which then has all of them.
        new = np.minimum(seen - part.start, part.stop - part.start)
        before = slots.occupied.max((1, 2))
        slots.make_room(new, most_slots(slots, new, settings, available))
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
