"""Resize, centre crop, rescale, normalise: Hugging Face's PIL processor of CLIP, to the bit.

`preprocessor.json`, the values being those of the checkpoint's `preprocessor_config.json`:

    do_resize        bool; size: {"shortest_edge": px} or {"height": px, "width": px}
    resample         int, Pillow's number of the filter (3 is bicubic)
    do_center_crop   bool; crop_size: {"height": px, "width": px}; smaller images are padded black
    do_rescale       bool; rescale_factor: float, usually 1/255
    do_normalize     bool; image_mean, image_std: one float per channel
    do_convert_rgb   bool, optional and without effect: images arrive as RGB

The pixels in `size` and `crop_size` are those of the checkpoint; a call's resolution replaces them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from tightrope.arrays import Floats, Pixels
from tightrope.errors import BundleError, InputError

MAX_ASPECT_RATIO = 200
"""Longest side over shortest: beyond it, scaling the short side up would need gigabytes."""

_REQUIRED = {
    "do_resize": (),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}
CONFIG_KEYS = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)
"""What a checkpoint's processor has to say, in the order in which it acts."""
_KEYS = {"do_convert_rgb", *CONFIG_KEYS}


class SquarePixels:
    """Makes pixel_values [I, 3, R, R] of RGB images, as `CLIPImageProcessorPil` does."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        _check(config)
        self._do_resize = bool(config["do_resize"])
        self._do_center_crop = bool(config["do_center_crop"])
        if self._do_resize:
            self._keeps_aspect = set(config["size"]) == {"shortest_edge"}
            self._resample = PIL.Image.Resampling(config["resample"])
        self._levels = _levels(config)

    def __call__(self, images: Sequence[PIL.Image.Image], resolution: int) -> Floats:
        """pixel_values float32 [I, 3, R, R] of RGB images, R being `resolution` in pixels.

        Raises InputError for an image too long and thin to scale, or where nothing in the
        configuration brings images to R x R and one has another size.
        """
        pixel_values = np.empty((len(images), 3, resolution, resolution), np.float32)
        for image, planes in zip(images, pixel_values, strict=True):
            pixels = self._square(image, resolution)
            for channel in range(3):
                np.take(self._levels[channel], pixels[:, :, channel], out=planes[channel])
        return pixel_values

    def _square(self, image: PIL.Image.Image, resolution: int) -> Pixels:
        """The image's pixels as uint8 [R, R, 3]."""
        assert image.mode == "RGB", "load_image makes every image RGB"
        if self._do_resize:
            scaled = self._scaled_dimensions(image.size, resolution)
            image = image.resize(scaled, resample=self._resample)
        pixels: Pixels = np.asarray(image)
        if self._do_center_crop:
            pixels = _center_crop(pixels, resolution)
        if pixels.shape != (resolution, resolution, 3):
            raise InputError(
                f"an image has {image.width} x {image.height} pixels and this bundle scales none; "
                f"pass {resolution} x {resolution}"
            )
        return pixels

    def _scaled_dimensions(self, dimensions: tuple[int, int], resolution: int) -> tuple[int, int]:
        """(width, height) after resizing; the long side is cut, not rounded, as HF does."""
        if not self._keeps_aspect:
            return resolution, resolution
        width, height = dimensions
        short, long = min(dimensions), max(dimensions)
        if long > MAX_ASPECT_RATIO * short:
            raise InputError(
                f"an image has {width} x {height} pixels; one side may be at most "
                f"{MAX_ASPECT_RATIO} times the other: cut it into pieces"
            )
        scaled = int(resolution * long / short)
        return (resolution, scaled) if width <= height else (scaled, resolution)


def _center_crop(pixels: Pixels, edge: int) -> Pixels:
    """The middle [edge, edge, 3] of [H, W, 3], padded black where the image is smaller."""
    # Floor division puts an odd pixel where HF does, whether it is cut off or filled in.
    top, left = ((length - edge) // 2 for length in pixels.shape[:2])
    inside = pixels[max(0, top) : max(0, top) + edge, max(0, left) : max(0, left) + edge]
    height, width = inside.shape[:2]
    if (height, width) == (edge, edge):
        return inside
    padded = np.zeros((edge, edge, 3), np.uint8)
    padded[max(0, -top) : max(0, -top) + height, max(0, -left) : max(0, -left) + width] = inside
    return padded


def _levels(config: Mapping[str, Any]) -> Floats:
    """[3, 256]: what each 8-bit value becomes in each channel.

    An 8-bit image has only 256 inputs per channel, so the arithmetic, and its rounding, is done
    once: float64 for the rescaling, float32 for the rest, as HF does.
    """
    levels = np.arange(256, dtype=np.float64)
    if config["do_rescale"]:
        levels = levels * config["rescale_factor"]
    channels = np.tile(levels.astype(np.float32), (3, 1))
    if config["do_normalize"]:
        mean = np.asarray(config["image_mean"], np.float32)[:, None]
        std = np.asarray(config["image_std"], np.float32)[:, None]
        channels = (channels - mean) / std
    return channels


def _check(config: Mapping[str, Any]) -> None:
    """Raises BundleError for a configuration that this preprocessor cannot follow exactly."""
    if unknown := sorted(set(config) - _KEYS):
        raise _wrong(f"has {', '.join(unknown)}, which this version does not know")
    for step, needs in _REQUIRED.items():
        if not isinstance(config.get(step), bool):
            raise _wrong(f"has {step} {config.get(step)!r}; accepted: true, false")
        if missing := [key for key in needs if config[step] and config.get(key) is None]:
            raise _wrong(f"has {step} but no {', '.join(missing)}")
    if config["do_resize"]:
        _check_resize(config)
    if config["do_center_crop"] and not _is_pixels(config["crop_size"], "height", "width"):
        raise _wrong(f"has crop_size {config['crop_size']!r}; accepted: height and width")
    if config["do_rescale"] and not isinstance(config["rescale_factor"], (int, float)):
        raise _wrong(f"has rescale_factor {config['rescale_factor']!r}; accepted: a number")
    if config["do_normalize"]:
        for key in ("image_mean", "image_std"):
            if np.shape(config[key]) != (3,):
                raise _wrong(f"has {key} {config[key]!r}; accepted: three numbers")


def _check_resize(config: Mapping[str, Any]) -> None:
    by_edge = _is_pixels(config.get("size"), "shortest_edge")
    if not by_edge and not _is_pixels(config.get("size"), "height", "width"):
        raise _wrong(f"has size {config.get('size')!r}; accepted: shortest_edge, or height, width")
    if by_edge and not config["do_center_crop"]:
        raise _wrong("resizes by the shortest edge without a crop, so images keep their shape")
    accepted = {int(resample) for resample in PIL.Image.Resampling}
    if config.get("resample") not in accepted:
        raise _wrong(f"has resample {config.get('resample')!r}; accepted: {sorted(accepted)}")


def _is_pixels(value: object, *keys: str) -> bool:
    """Whether `value` maps exactly `keys` to positive whole numbers."""
    return (
        isinstance(value, Mapping)
        and set(value) == set(keys)
        and all(type(edge) is int and edge > 0 for edge in value.values())
    )


def _wrong(found: str) -> BundleError:
    return BundleError(f"preprocessor.json {found}; export the bundle again")
