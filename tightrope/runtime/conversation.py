"""What the slots of one conversation hold, and how new tokens get there."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

import numpy as np

from tightrope.arrays import Counts, Floats, Indices
from tightrope.bundle import Manifest
from tightrope.errors import InputError
from tightrope.inputs.layout import Stream
from tightrope.inputs.positions import find_rule
from tightrope.interface.calls import Call, Selection
from tightrope.runtime.backends.backend import Backend, Cancel
from tightrope.runtime.settings import Settings
from tightrope.runtime.slots import Slots

Key = int | tuple[object, ...]
"""A token of the prompt: its id, or what an image is known by."""


@dataclass
class Conversation:
    """Slots and the tokens that they were filled with."""

    backend: Backend
    manifest: Manifest
    slots: Slots = field(init=False)
    keys: list[Key] = field(init=False)
    next_ordinal: int = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.slots = self.backend.make_slots(1)
        self.keys, self.next_ordinal = [], 0

    def read(self, stream: Stream, keep_inside: int, settings: Settings, cancel: Cancel) -> Floats:
        """Prefill `stream` in chunks; returns logits [1,vocab] after its last token.

        keep_inside: visual tokens that the schedule leaves, over all images of the call.
        Raises InputError before anything runs where the slots cannot hold it.
        """
        length, chunk = len(stream.ordinals), self.manifest.prefill_chunk
        self.check_fits(length, len(stream.visual), keep_inside, settings)
        selection = self._selection(stream.visual, keep_inside, settings)
        rope = find_rule(self.manifest.positions)(stream.ordinals)
        self.slots.trim(settings.kv_budget, settings.policy)
        logits: Floats | None = None
        for start in range(0, length, chunk):
            part = slice(start, min(start + chunk, length))
            call = Call(
                stream.embeds[None, part],
                stream.ordinals[None, part],
                rope.positions[None, part],
                settings.kv_budget,
                settings.policy,
                selection,
            )
            seen = call.tokens_per_layer()
            self.slots.make_room(seen, self._most(seen, settings))
            logits, update = self.backend.prefill(self.slots, call, cancel)
            self.slots.commit(update)
            self.slots.trim(settings.kv_budget, settings.policy)
        assert logits is not None, "a stream has tokens"
        self.slots.shrink(settings.kv_budget.max(1))
        self.next_ordinal = stream.next_ordinal
        return logits

    def _most(self, new_tokens: Counts, settings: Settings) -> Counts:
        """Slots that each layer may have in a prefill call, [L].

        Where all new tokens find an empty slot the graph ranks nothing, and what is too much is
        trimmed afterwards; only where the bundle's slots do not suffice it ranks inside the call.
        """
        slots = self.manifest.slots
        fits = self.slots.occupied.max((1, 2)) + new_tokens <= slots
        return np.where(fits, slots, settings.kv_budget.max(1))

    def check_fits(
        self, length: int, num_visual: int, keep_inside: int, settings: Settings
    ) -> None:
        """Raises InputError for `length` new tokens that no call or no slots can hold.

        num_visual: how many of them are visual.
        """
        selection = self._selection(np.arange(num_visual), keep_inside, settings)
        chunk = self.manifest.prefill_chunk
        if selection is not None and length > chunk:
            raise InputError(
                f"the prompt has {length} tokens; a schedule needs them in one call of "
                f"{chunk} at most: export with a larger prefill_chunk, or use no schedule"
            )
        if settings.evicts:
            return
        # The first layer sees every token, whatever a schedule drops later.
        needed = int(self.slots.occupied.max() + length)
        if needed > self.manifest.slots:
            raise InputError(
                f"the prompt needs {needed} slots, the bundle has {self.manifest.slots}; shorten "
                "it, keep fewer visual tokens, set kv_budget, or export with more --slots"
            )

    def _selection(self, visual: Indices, keep_inside: int, settings: Settings) -> Selection | None:
        link = settings.link("inside")
        if link is None or keep_inside >= len(visual):
            return None
        stages = self.manifest.schedules[link.method]
        keeps = [min(len(visual), ceil(keep_inside * stage.share)) for stage in stages]
        return Selection(
            link.method, visual[None], tuple(keeps), tuple(stage.layer for stage in stages)
        )
