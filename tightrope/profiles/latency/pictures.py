"""Pictures to measure with, drawn and encoded in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.features
import PIL.Image

from tightrope.arrays import Pixels
from tightrope.runtime.options import ImageSource

NOISE = 16
"""Levels by which neighbours differ in a rough picture: a file as large as a photograph's."""
_ENCODE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 85},
    "PNG": {"compress_level": 1},
    "WEBP": {"quality": 80, "method": 0},
}


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of picture."""

    format: str
    """Of Pillow, or "array" for pixels."""
    width: int
    height: int
    rough: bool = False
    """Photographs are; drawings and screens are smooth, and their files small."""


SOURCES = (
    Source("PNG", 640, 480),
    Source("JPEG", 1920, 1080, rough=True),
    Source("array", 640, 480),
    Source("JPEG", 640, 480),
    Source("PNG", 1280, 720, rough=True),
    Source("WEBP", 1280, 720),
    Source("JPEG", 3840, 2160, rough=True),
    Source("PNG", 320, 240),
    Source("array", 1920, 1080),
    Source("WEBP", 640, 480, rough=True),
    Source("JPEG", 1280, 720),
    Source("PNG", 1920, 1080),
    Source("WEBP", 1920, 1080, rough=True),
    Source("array", 320, 240),
    Source("JPEG", 320, 240, rough=True),
    Source("PNG", 640, 480, rough=True),
)
"""In the order in which points take them: the first few span formats and sizes as well."""


def sources() -> tuple[Source, ...]:
    """Those that this Pillow can encode."""
    webp = PIL.features.check("webp")
    return tuple(source for source in SOURCES if webp or source.format != "WEBP")


def draw(source: Source, number: int = 0) -> ImageSource:
    """A picture of this kind, as a user hands it in; pictures of other numbers differ."""
    pixels = _pixels(source, number)
    if source.format == "array":
        return pixels
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, source.format, **_ENCODE[source.format])
    return stream.getvalue()


def _pixels(source: Source, number: int) -> Pixels:
    """uint8 [H,W,3]: soft colours, with noise if it is rough."""
    rng = np.random.default_rng(number)
    shape = (source.width, source.height)
    soft = PIL.Image.fromarray(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8))
    pixels: Pixels = np.asarray(soft.resize(shape, PIL.Image.Resampling.BICUBIC))
    if not source.rough:
        return pixels
    noise = rng.integers(-NOISE, NOISE + 1, (source.height, source.width, 1), dtype=np.int16)
    noisy: Pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return noisy
