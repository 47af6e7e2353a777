"""Images to the visual tokens that enter the language model."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from tightrope.arrays import Floats
from tightrope.errors import BundleError
from tightrope.inputs.layout import ImageTokens
from tightrope.inputs.prepare import Prepare, Tower
from tightrope.runtime.backends.backend import Backend, VisualTokens
from tightrope.runtime.baselines import BASELINES
from tightrope.runtime.images import ImageSource, check_list, image_digest, load_image
from tightrope.runtime.settings import Settings
from tightrope.runtime.stopwatch import Stopwatch

REMEMBERED_BYTES = 64 << 20
"""Vision outputs kept for images that are asked about again."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A decoded image and the hash of its content."""

    image: PIL.Image.Image
    digest: str


def load_images(sources: Sequence[ImageSource], watch: Stopwatch) -> list[LoadedImage]:
    """Decode images; raises InputError naming what cannot be used."""
    check_list(sources)
    with watch("image_ms"):
        images = [load_image(source) for source in sources]
        return [LoadedImage(image, image_digest(image)) for image in images]


class Vision:
    """Preparing, tower and selection, with a memory of images that were seen before."""

    def __init__(self, backend: Backend, tower: Tower, prepare: Prepare) -> None:
        self._backend, self.tower, self.prepare = backend, tower, prepare
        self._memory: OrderedDict[tuple[str, int], VisualTokens] = OrderedDict()
        self._lock = threading.Lock()

    def tokens_of(
        self,
        images: Sequence[LoadedImage],
        settings: Settings,
        text_embeds: Callable[[], Floats],
        seed: int,
        watch: Stopwatch,
    ) -> list[ImageTokens]:
        """The visual tokens of each image that `settings` lets into the language model.

        text_embeds: the question's embeddings [T,E], asked for by selectors that it guides.
        """
        if not images:
            return []
        assert settings.resolution is not None
        layout = self.tower.layout(settings.resolution)
        tokens = self._tokens(images, settings.resolution, watch)
        available, link = tokens.embeds.shape[1], settings.link("tower")
        keep = settings.kept("tower", available, available)
        if link is None or keep >= available:
            everything = np.arange(available)
            return [ImageTokens(layout, everything, embeds) for embeds in tokens.embeds]
        with watch("select_ms"):
            if link.method in BASELINES:
                index = BASELINES[link.method].indices(len(images), available, keep, seed)
                embeds = np.take_along_axis(tokens.embeds, index[:, :, None], 1)
            else:
                index, embeds = self._backend.select(link.method, tokens, text_embeds(), keep)
        return [
            ImageTokens(layout, kept, values) for kept, values in zip(index, embeds, strict=True)
        ]

    def _tokens(
        self, images: Sequence[LoadedImage], resolution: int, watch: Stopwatch
    ) -> VisualTokens:
        """Vision outputs of all images, those of new ones computed in one call."""
        found = {entry.digest: self._recall(entry.digest, resolution) for entry in images}
        new = [entry for entry in images if found[entry.digest] is None]
        new = list({entry.digest: entry for entry in new}.values())
        if new:
            with watch("image_ms"):
                inputs = self.prepare([entry.image for entry in new], resolution)
            with watch("vision_ms"):
                fresh = self._backend.vision(inputs)
            for place, entry in enumerate(new):
                one = _part(fresh, place)
                found[entry.digest] = one
                self._remember(entry.digest, resolution, one)
        parts = [part for entry in images if (part := found[entry.digest]) is not None]
        if len(parts) != len(images):
            raise BundleError("the vision graph returned fewer images than it was given")
        return _joined(parts)

    def _recall(self, digest: str, resolution: int) -> VisualTokens | None:
        with self._lock:
            tokens = self._memory.get((digest, resolution))
            if tokens is not None:
                self._memory.move_to_end((digest, resolution))
            return tokens

    def _remember(self, digest: str, resolution: int, tokens: VisualTokens) -> None:
        with self._lock:
            self._memory[digest, resolution] = tokens
            while sum(entry.nbytes for entry in self._memory.values()) > REMEMBERED_BYTES:
                self._memory.popitem(last=False)


def _part(tokens: VisualTokens, place: int) -> VisualTokens:
    one = slice(place, place + 1)
    signals = {name: value[one].copy() for name, value in tokens.signals.items()}
    return VisualTokens(tokens.embeds[one].copy(), signals)


def _joined(parts: Sequence[VisualTokens]) -> VisualTokens:
    if len(parts) == 1:
        return parts[0]
    signals = {
        name: np.concatenate([part.signals[name] for part in parts]) for name in parts[0].signals
    }
    return VisualTokens(np.concatenate([part.embeds for part in parts]), signals)
