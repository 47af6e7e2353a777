"""What the slots of one conversation hold, and how new tokens get there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tightrope.bundle import Manifest
from tightrope.errors import InputError
from tightrope.runtime.backends.backend import (
    Backend,
    Call,
    Cancel,
    Selection,
    tokens_per_layer,
)
from tightrope.runtime.embeddings import Embeddings
from tightrope.runtime.settings import Settings, stages_of
from tightrope.runtime.sight import SeenImage
from tightrope.runtime.slots import Slots

Floats = npt.NDArray[np.float32]
Key = int | tuple[object, ...]
"""A token of the prompt: its id, or what an image is known by."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens ready for the decoder."""

    embeds: Floats
    """[S,E]"""
    ordinals: npt.NDArray[np.int32]
    """[S]"""
    visual: npt.NDArray[np.int64]
    """Places of visual tokens, ascending"""
    next_ordinal: int


def assemble(
    token_ids: Sequence[int],
    images: Sequence[SeenImage],
    image_token_id: int | None,
    embeddings: Embeddings,
    start: int,
) -> Stretch:
    """Put each image's kept tokens in the place of its placeholder.

    Ordinals count the unpruned stream from `start`: a pruned token leaves a gap.
    """
    parts, ordinals, visual = [], [], []
    place, ordinal, first = 0, start, 0
    waiting = iter(images)
    ids = list(token_ids)
    marks = [i for i, token in enumerate(ids) if token == image_token_id] if images else []
    for mark in [*marks, len(ids)]:
        text = ids[first:mark]
        if text:
            parts.append(embeddings(text))
            ordinals.append(np.arange(ordinal, ordinal + len(text)))
            place, ordinal = place + len(text), ordinal + len(text)
        if mark < len(ids):
            image = next(waiting)
            parts.append(image.embeds)
            ordinals.append(ordinal + image.index)
            visual.append(np.arange(place, place + len(image.index)))
            place, ordinal = place + len(image.index), ordinal + image.available
        first = mark + 1
    return Stretch(
        np.concatenate(parts),
        np.concatenate(ordinals).astype(np.int32),
        np.concatenate(visual) if visual else np.zeros(0, np.int64),
        ordinal,
    )


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

    def read(
        self, stretch: Stretch, keep_inside: int, settings: Settings, cancel: Cancel
    ) -> Floats:
        """Prefill `stretch` in chunks; returns logits [1,vocab] after its last token.

        keep_inside: visual tokens that the schedule leaves, over all images of the call.
        Raises InputError before anything runs where the slots cannot hold it.
        """
        length, chunk = len(stretch.ordinals), self.manifest.prefill_chunk
        self.check_fits(length, len(stretch.visual), keep_inside, settings)
        selection = self._selection(stretch.visual, keep_inside, settings)
        self.slots.trim(settings.budget, settings.sinks, settings.recent)
        logits: Floats | None = None
        for start in range(0, length, chunk):
            part = slice(start, min(start + chunk, length))
            call = Call(
                stretch.embeds[None, part],
                stretch.ordinals[None, part],
                stretch.ordinals[None, part].astype(np.int64),
                settings.budget,
                settings.policy,
            )
            seen = tokens_per_layer(len(settings.budget), part.stop - start, selection)
            self.slots.make_room(seen, settings.budget)
            logits, update = self.backend.prefill(self.slots, call, cancel, selection)
            self.slots.commit(update, settings.budget)
        assert logits is not None, "a stretch has tokens"
        self.next_ordinal = stretch.next_ordinal
        return logits

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
        seen = tokens_per_layer(len(settings.budget), length, selection)
        needed = int((self.slots.occupied.max((1, 2)) + seen).max())
        if needed > self.manifest.slots:
            raise InputError(
                f"the prompt needs {needed} slots, the bundle has {self.manifest.slots}; shorten "
                "it, keep fewer visual tokens, set kv_budget, or export with more --slots"
            )

    def _selection(
        self, visual: npt.NDArray[np.int64], keep_inside: int, settings: Settings
    ) -> Selection | None:
        if settings.inside is None or keep_inside >= len(visual):
            return None
        name = settings.inside[0]
        stages = stages_of(self.manifest, name)
        return Selection(
            name,
            visual[None],
            (keep_inside,) * len(stages),
            tuple(stage.layer for stage in stages),
        )
