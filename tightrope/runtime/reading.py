"""What is left to read of a prompt: the images are seen, and stand among its embeddings."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from tightrope.arrays import Floats
from tightrope.inputs.layout import ImageTokens, Stream, assemble
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.conversation import Conversation, Resumed
from tightrope.runtime.cuts import cuts_of
from tightrope.runtime.demand import demand_of
from tightrope.runtime.held import HeldImage
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.marks import Cut
from tightrope.runtime.prefixes import Stop, stops_of
from tightrope.runtime.settings import Settings
from tightrope.runtime.stopwatch import Stopwatch
from tightrope.runtime.written import Written


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """What the slots do not hold yet."""

    stream: Stream
    stops: list[Stop]
    """Where a call ends, so that what stands before can be kept."""
    visual_tokens: int
    """Before selection."""
    inside: int
    """Visual tokens that a schedule leaves."""


class Reading:
    """Turns one request's prompt into what the decoder reads."""

    def __init__(
        self,
        loaded: Loaded,
        conversation: Conversation,
        images: Sequence[HeldImage],
        seed: int,
        watch: Stopwatch,
        cancel: Cancel,
    ) -> None:
        self._loaded, self._conversation, self._images = loaded, conversation, images
        self._seed, self._watch, self._cancel = seed, watch, cancel

    def unread(self, written: Written, resumed: Resumed) -> Unread:
        """What is left of the prompt behind what the conversation holds; runs the tower.

        Raises InputError before it runs where the slots cannot hold the prompt.
        """
        settings, language = resumed.settings, self._loaded.language
        ids, keys = written.token_ids[resumed.known :], self._conversation.keys
        earlier = sum(isinstance(key, tuple) for key in keys)
        cuts: Sequence[Cut] = ()
        if not resumed.known:
            sizes = [image.size for image in self._images]
            cuts = cuts_of(self._loaded, written.marks, sizes, settings)
        self._check_fits(len(ids), earlier, settings, cuts)
        images = self._see(written, earlier, ids, settings)
        start = self._conversation.next_ordinal
        stream = assemble(ids, language.placeholder, images, self._loaded.embeddings, start)
        return Unread(
            stream=stream,
            stops=stops_of(cuts, ids, language.placeholder, images, settings.policy),
            visual_tokens=sum(image.available for image in images),
            inside=sum(
                settings.kept("inside", image.available, len(image.index)) for image in images
            ),
        )

    def _check_fits(
        self, num_ids: int, earlier: int, settings: Settings, cuts: Sequence[Cut]
    ) -> None:
        sizes = [image.size for image in self._images[earlier:]]
        demand = demand_of(self._loaded, num_ids, sizes, settings)
        head = cuts[-1].place if cuts else 0
        self._conversation.check_fits(demand.length, demand.visual, demand.inside, settings, head)

    def _see(
        self, written: Written, earlier: int, ids: list[int], settings: Settings
    ) -> list[ImageTokens]:
        """The visual tokens that the new images bring."""
        loaded, images, watch = self._loaded, self._images[earlier:], self._watch
        vision, resolution = loaded.vision, settings.resolution
        if vision is None or resolution is None or not images:
            return []

        def text_embeds() -> Floats:
            placeholder = loaded.language.placeholder
            return loaded.embeddings([token for token in ids if token != placeholder])

        seen = vision.see(images, written.prepared, resolution, watch, self._cancel)
        selecting = settings.link("tower") is not None
        with watch("select_ms") if selecting else contextlib.nullcontext():
            return vision.select(images, seen, settings, text_embeds, self._seed)
