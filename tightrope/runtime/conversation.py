"""What the slots of one conversation hold, and how new tokens get there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from tightrope.arrays import Counts, Floats, Indices
from tightrope.errors import InputError
from tightrope.inputs.layout import Stream, reach, wholes
from tightrope.interface.calls import Call, Selection, new_tokens, no_levels
from tightrope.plugins.slot_attention.policies import scoring, unprotected
from tightrope.runtime.begun import Begun
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.cuts import parts_of
from tightrope.runtime.held import HeldImage
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.prefixes import Stop
from tightrope.runtime.settings import Settings
from tightrope.runtime.slots import Slots

Key = int | tuple[object, ...]
"""A token of the prompt: its id, or what an image and its selection are known by."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a turn goes on."""

    known: int
    """Keys of the prompt that are in the slots already."""
    settings: Settings
    """Of the turn; without a budget the conversation's own policy goes on."""
    note: str | None = None
    """Why everything is read again, if it is."""


@dataclass
class Conversation:
    """Slots and the tokens that they were filled with."""

    loaded: Loaded
    slots: Slots = field(init=False)
    keys: list[Key] = field(init=False)
    next_ordinal: int = field(init=False)
    rope_delta: int = field(init=False)
    reused: Stop | None = field(init=False)
    """Up to where the newest prompt was in slots that were kept of earlier requests."""
    progress: float = field(init=False)
    """Of what was left of it to read, the share that is read."""
    _policy: Floats | None = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.slots = Slots(self.loaded.manifest.dims, 1, self.loaded.backend.make_storage)
        self.keys, self.next_ordinal, self.rope_delta = [], 0, 0
        self.reused, self.progress = None, 0.0
        self._policy = None

    def resume(self, keys: list[Key], settings: Settings) -> Resumed:
        """Keep what the slots hold if `keys` go on from it under the same policy; else forget it.

        Scores of two policies cannot be ranked together, and an image is known by how it was read.
        """
        if self._policy is not None and not settings.evicts:
            settings = replace(settings, policy=unprotected(self._policy))
        note, known = None, len(self.keys)
        if keys[:known] != self.keys or len(keys) == known:
            note = "its earlier turns are not written the way the slots hold them"
        elif self._policy is not None and scoring(settings.policy) != scoring(self._policy):
            note = "its slots were scored by another policy"
        if note is not None:
            self.reset()
            return Resumed(0, settings, f"the conversation was read again from its start: {note}")
        return Resumed(known, settings)

    def begun(self, token_ids: Sequence[int], images: Sequence[HeldImage]) -> Begun | None:
        """What it holds of a prompt with these images; None where that does not go on from it."""
        keys, waiting, read_as = list(self.keys), iter(images), set[tuple[object, ...]]()
        if self._policy is None or not 0 < len(keys) < len(token_ids):
            return None
        for key, token in zip(keys, token_ids, strict=False):
            if not isinstance(key, tuple):
                if key != token:
                    return None
                continue
            image = next(waiting, None)
            if image is None or key[:2] != image.key(()):
                return None
            read_as.add(key[2:])
        return Begun(
            num_ids=len(keys),
            num_images=sum(isinstance(key, tuple) for key in keys),
            read_as=frozenset(read_as),
            scoring=scoring(self._policy),
            ordinal=self.next_ordinal,
            occupied=tuple(self.slots.occupied.max((1, 2)).tolist()),
        )

    def read(
        self,
        stream: Stream,
        keep_inside: int,
        settings: Settings,
        cancel: Cancel,
        stops: Sequence[Stop] = (),
    ) -> Iterator[Floats]:
        """Prefill `stream` chunk by chunk; yields logits [1,vocab] after each of them.

        keep_inside: visual tokens that the schedule leaves, over all images of the call.
        stops: where a call ends, so that what stands before can be kept; they need empty slots.
        Raises InputError before anything runs where the slots cannot hold it.
        """
        manifest, places = self.loaded.manifest, [stop.cut.place for stop in stops]
        length, head = len(stream.ordinals), places[-1] if places else 0
        self.check_fits(length, len(stream.visual), keep_inside, settings, head)
        selection = self._selection(stream.visual - head, keep_inside, settings)
        rope = self.loaded.rope(stream.runs, stream.ordinals, self.rope_delta)
        levels = no_levels(manifest.dims, 1, length)
        if stream.deepstack is not None:
            levels = stream.deepstack[None]
        ends = reach(stream)[None] if manifest.dims.reach else None
        images = wholes(stream) if manifest.dims.reach else []
        self._policy = settings.policy
        chunk = self.loaded.chunks.under(settings, int(self.slots.occupied.max()))
        start = self._take_kept(stops)
        self.slots.trim(settings.kv_budget, settings.policy)
        for part in parts_of(length, chunk, places, [slice(one.start, one.stop) for one in images]):
            if part.start < start:
                continue
            call = Call(
                stream.embeds[None, part],
                stream.ordinals[None, part],
                rope.positions[..., None, part],
                settings.kv_budget,
                settings.policy,
                selection if part.stop > head else None,
                None if levels is None else levels[:, part],
                None if ends is None else ends[:, part],
            )
            seen = call.tokens_per_layer()
            self.slots.make_room(seen, most_slots(self.slots, seen, settings, manifest.slots))
            logits, update = self.loaded.backend.prefill(self.slots, call, cancel)
            self.slots.commit(update)
            self.slots.trim(settings.kv_budget, settings.policy)
            if part.stop in places:
                self.loaded.prefixes.keep(stops[places.index(part.stop)].key, self.slots)
            if part.stop == length:
                self.slots.shrink(settings.kv_budget.max(1))
                self.next_ordinal, self.rope_delta = stream.next_ordinal, rope.delta
            self.progress = (part.stop - start) / (length - start)
            yield logits

    def _take_kept(self, stops: Sequence[Stop]) -> int:
        """Go on from the longest beginning that is kept; returns how many tokens it has."""
        self.reused = None
        for stop in reversed(stops):
            if (slots := self.loaded.prefixes.fork(stop.key)) is not None:
                self.slots, self.reused = slots, stop
                return stop.cut.place
        return 0

    def record(self, token_ids: list[int]) -> None:
        """Generated tokens whose keys and values are in the slots."""
        self.keys += token_ids
        self.next_ordinal += len(token_ids)

    def check_fits(
        self, length: int, num_visual: int, keep_inside: int, settings: Settings, head: int = 0
    ) -> Counts:
        """Those of `length` new tokens that each layer sees, [L].

        num_visual: how many of them are visual. head: those that stand before the last cut.
        Raises InputError where no call or no slots can hold them.
        """
        manifest = self.loaded.manifest
        selection = self._selection(np.arange(num_visual), keep_inside, settings)
        if selection is not None and length - head > manifest.prefill_chunk:
            raise InputError(
                f"the prompt has {length - head} tokens; a schedule needs them in one call of "
                f"{manifest.prefill_chunk} at most: export with a larger prefill_chunk, or use "
                "no schedule"
            )
        seen = new_tokens(manifest.dims.num_hidden_layers, length, selection)
        needed = (self.slots.occupied.max((1, 2)) + seen)[~settings.gives_up].max(initial=0)
        if needed > manifest.slots:
            raise InputError(
                f"the prompt needs {needed} slots, the bundle has {manifest.slots}; shorten "
                "it, keep fewer visual tokens, set kv_budget, or export with more --slots"
            )
        if self.next_ordinal + length > settings.positions:
            raise InputError(
                f"the conversation would have {self.next_ordinal + length} tokens; this model's "
                f"rotary positions hold for {settings.positions}, beyond them all of its "
                "frequencies change; shorten it, or begin another"
            )
        return seen

    def _selection(self, visual: Indices, keep_inside: int, settings: Settings) -> Selection | None:
        link = settings.link("inside")
        if link is None or keep_inside >= len(visual):
            return None
        stages = self.loaded.manifest.schedules[link.method]
        keeps = [min(len(visual), ceil(keep_inside * stage.share)) for stage in stages]
        return Selection(
            link.method, visual[None], tuple(keeps), tuple(stage.layer for stage in stages)
        )


def most_slots(slots: Slots, seen: Counts, settings: Settings, available: int) -> Counts:
    """Slots that each layer may have in a prefill call of which it sees `seen` [L] tokens.

    available: the bundle's.

    Where all new tokens find an empty slot the graph ranks nothing, and what is too much is
    trimmed afterwards; only where the bundle's slots do not suffice it ranks inside the call.
    """
    fits = slots.occupied.max((1, 2)) + seen <= available
    return np.where(fits, available, settings.kv_budget.max(1))
