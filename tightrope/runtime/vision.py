"""Images to the visual tokens that enter the language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from tightrope.arrays import Array, Floats
from tightrope.errors import BundleError
from tightrope.inputs.layout import ImageTokens
from tightrope.inputs.prepare import Prepare, Tower
from tightrope.runtime.backends.backend import Backend, VisualTokens
from tightrope.runtime.baselines import Baselines
from tightrope.runtime.images import check_list, image_digest, load_image
from tightrope.runtime.kept import IMAGE_BYTES, Kept
from tightrope.runtime.options import ImageSource
from tightrope.runtime.settings import Settings
from tightrope.runtime.stopwatch import Stopwatch


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A decoded image and the hash of its content."""

    image: PIL.Image.Image
    digest: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """Inputs of the tower for some images, by name."""

    digests: tuple[str, ...]
    inputs: Mapping[str, Array]


def load_images(sources: Sequence[ImageSource]) -> list[LoadedImage]:
    """Decode images; raises InputError naming what cannot be used."""
    check_list(sources)
    images = [load_image(source) for source in sources]
    return [LoadedImage(image, image_digest(image)) for image in images]


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

    def prepare(self, images: Sequence[LoadedImage], resolution: int) -> Prepared | None:
        """The tower's inputs for those images that it has not seen yet; None if it has seen all.

        Raises InputError for an image that cannot be scaled.
        """
        new = {entry.digest: entry.image for entry in images}
        new = {
            digest: image for digest, image in new.items() if (digest, resolution) not in self.kept
        }
        if not new:
            return None
        return Prepared(tuple(new), self._prepare(list(new.values()), resolution))

    def see(
        self,
        images: Sequence[LoadedImage],
        prepared: Prepared | None,
        resolution: int,
        watch: Stopwatch,
    ) -> VisualTokens:
        """Vision outputs of all images [I,V,E], those of `prepared` ones computed in one call."""
        found: dict[str, VisualTokens] = {}
        if prepared is not None:
            with watch("vision_ms"):
                fresh = self._backend.vision(prepared.inputs)
            if len(fresh.embeds) != len(prepared.digests):
                raise BundleError("the vision graph returned fewer images than it was given")
            for place, digest in enumerate(prepared.digests):
                found[digest] = _part(fresh, place)
                self.kept.put((digest, resolution), found[digest])
        for entry in images:
            if entry.digest in found:
                continue
            if (tokens := self.kept.get((entry.digest, resolution))) is None:
                # Forgotten since it was looked up: others filled the memory meanwhile.
                with watch("vision_ms"):
                    tokens = self._backend.vision(self._prepare([entry.image], resolution))
            found[entry.digest] = tokens
        return _joined([found[entry.digest] for entry in images])

    def select(
        self,
        tokens: VisualTokens,
        settings: Settings,
        text_embeds: Callable[[], Floats],
        seed: int,
    ) -> list[ImageTokens]:
        """The visual tokens of each image that `settings` lets into the language model.

        text_embeds: the question's embeddings [T,E], asked for by selectors that it guides.
        """
        assert settings.resolution is not None
        layout = self.tower.layout(settings.resolution)
        images, available, _ = tokens.embeds.shape
        link, keep = settings.link("tower"), settings.kept("tower", available, available)
        if link is None or keep >= available:
            index, embeds = np.tile(np.arange(available), (images, 1)), tokens.embeds
        elif link.method in self._baselines:
            index = self._baselines[link.method].indices(images, available, keep, seed)
            embeds = np.take_along_axis(tokens.embeds, index[:, :, None], 1)
        else:
            index, embeds = self._backend.select(link.method, tokens, text_embeds(), keep)
        return [
            ImageTokens(layout, kept, values) for kept, values in zip(index, embeds, strict=True)
        ]


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
