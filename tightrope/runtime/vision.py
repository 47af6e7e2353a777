"""Images to the visual tokens that enter the language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import PIL.Image

from tightrope.arrays import Array, Floats
from tightrope.errors import BundleError
from tightrope.foreign import translated
from tightrope.inputs.layout import ImageTokens, Size
from tightrope.inputs.prepare import Prepare, Tower
from tightrope.interface.tensors import DEEPSTACK, VISUAL_EMBEDS
from tightrope.runtime.backends.backend import Backend, VisualTokens
from tightrope.runtime.baselines import Baselines
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.held import HeldImage
from tightrope.runtime.kept import IMAGE_BYTES, Kept
from tightrope.runtime.settings import Settings
from tightrope.runtime.stopwatch import Stopwatch

Prepared = Mapping[str, Mapping[str, Array]]
"""By an image's digest the tower's inputs by name."""


class Vision:
    """Preparing, tower and selection, with a memory of images that were seen before."""

    def __init__(
        self,
        backend: Backend,
        tower: Tower,
        prepare: Prepare,
        baselines: Baselines,
        most_bytes: int = IMAGE_BYTES,
    ) -> None:
        """most_bytes: of what the tower said, kept for images that are asked about again."""
        self._backend, self.tower, self._prepare = backend, tower, prepare
        self._baselines = baselines
        self.kept: Kept[tuple[str, int], VisualTokens] = Kept(
            most_bytes, lambda tokens: tokens.nbytes
        )
        """By content and resolution."""

    @property
    def detail(self) -> float:
        """As of `SourceImage`: what the tower needs of an image at least."""
        return self._prepare.detail

    def prepare(self, images: Sequence[HeldImage], resolution: int, watch: Stopwatch) -> Prepared:
        """The tower's inputs for those images that it has not seen yet.

        Raises InputError for an image that is damaged, or that the tower does not take.
        """
        new = {entry.digest: entry for entry in images}
        return {
            digest: self._inputs(entry, resolution, watch)
            for digest, entry in new.items()
            if (digest, resolution) not in self.kept
        }

    def _inputs(self, entry: HeldImage, resolution: int, watch: Stopwatch) -> Mapping[str, Array]:
        with watch("image_ms"):
            with watch("image_decode_ms"):
                pictures = entry.pictures(resolution)
            with watch("preprocess_ms"):
                return self.inputs(pictures, resolution)

    def see(
        self,
        images: Sequence[HeldImage],
        prepared: Prepared,
        resolution: int,
        watch: Stopwatch,
        cancel: Cancel,
    ) -> list[VisualTokens]:
        """The visual tokens of each image, in one call each for those that are `prepared`."""
        found: dict[str, VisualTokens] = {}
        for entry in images:
            if entry.digest in found:
                continue
            known = self.kept.get((entry.digest, resolution))
            if known is None:
                inputs = prepared.get(entry.digest)
                if inputs is None:
                    # Forgotten since it was looked up: others filled the memory meanwhile.
                    inputs = self._inputs(entry, resolution, watch)
                with watch("vision_ms"):
                    seen = self._backend.vision(inputs, cancel)
                    known = self.tokens(seen, entry.size, resolution)
                self.kept.put((entry.digest, resolution), known)
            found[entry.digest] = known
        return [found[entry.digest] for entry in images]

    def inputs(self, pictures: Sequence[PIL.Image.Image], resolution: int) -> Mapping[str, Array]:
        """The tower's inputs, by name, of one image: a picture, or those of a clip's pair."""
        return self._prepare(pictures, resolution)

    def tokens(self, seen: VisualTokens, size: Size, resolution: int) -> VisualTokens:
        """What the vision graph said of an image of `size`, in the order of its layout."""
        given = {VISUAL_EMBEDS: seen.embeds, **seen.signals}
        with translated(BundleError, "the vision graph gave too little", "export it again"):
            outputs = self.tower.tokens(given, size, resolution)
        return VisualTokens(outputs.pop(VISUAL_EMBEDS), outputs)

    def select(
        self,
        images: Sequence[HeldImage],
        seen: Sequence[VisualTokens],
        settings: Settings,
        text_embeds: Callable[[], Floats],
        seed: int,
    ) -> list[ImageTokens]:
        """The visual tokens of each image that `settings` lets into the language model.

        text_embeds: the question's embeddings [T,E], asked for by selectors that it guides.
        """
        assert settings.resolution is not None
        text: Floats | None = None
        chosen = []
        for number, (entry, tokens) in enumerate(zip(images, seen, strict=True)):
            layout = self.tower.layout(entry.size, settings.resolution)
            available = tokens.embeds.shape[1]
            link, keep = settings.link("tower"), settings.kept("tower", available, available)
            if link is None or keep >= available:
                index, embeds = np.arange(available), tokens.embeds[0]
            elif link.method in self._baselines:
                index = self._baselines[link.method].indices(number, available, keep, seed)
                embeds = tokens.embeds[0, index]
            else:
                text = text_embeds() if text is None else text
                indices, rows = self._backend.select(link.method, tokens, text, keep)
                index, embeds = indices[0], rows[0]
            levels = tokens.signals.get(DEEPSTACK)
            kept = None if levels is None else levels[0, index]
            chosen.append(ImageTokens(layout, index, embeds, kept, entry.behind))
        return chosen
