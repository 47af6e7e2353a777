"""Pad, resize, centre crop, rescale, normalise: Hugging Face's PIL processors, to the bit.

`preprocessor.json`, everything stated, the values being those of the checkpoint's processor:

    do_pad           bool: to a square, before anything else; background: three colours of 0..255
    do_resize        bool; size: {"shortest_edge": px}, the same with "longest_edge",
                     {"height": px, "width": px} or {"max_height": px, "max_width": px}
    resample         int, Pillow's number of the filter (3 is bicubic)
    do_center_crop   bool; crop_size: {"height": px, "width": px}; smaller images are padded black
    do_rescale       bool; rescale_factor: float, usually 1/255
    do_normalize     bool; image_mean, image_std: one float per channel
    do_convert_rgb   bool, optional and without effect: images arrive as RGB

The pixels in `size` and `crop_size` are those of the checkpoint; another resolution scales both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from tightrope.arrays import Floats, Pixels
from tightrope.checks import shown
from tightrope.errors import BundleError, InputError
from tightrope.inputs.layout import Size

MAX_ASPECT_RATIO = 200
"""Longest side over shortest: beyond it, scaling the short side up would need gigabytes."""
MOST_PIXELS = 1 << 14
"""Of an edge in a configuration."""
MOST_MEGAPIXELS = 144
"""Of what an image becomes on its way, padded or scaled: Pillow takes four bytes for each pixel."""
_LARGEST = float(np.finfo(np.float32).max)

_NEEDS = {
    "do_pad": ("background",),
    "do_resize": ("size", "resample"),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}
"""What each step has to be told, in the order in which they act."""
CONFIG_KEYS = tuple(key for step, needs in _NEEDS.items() for key in (step, *needs))
_OPTIONAL = ("do_pad", "background", "do_convert_rgb")
_SIZES = (
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"height", "width"},
    {"max_height", "max_width"},
)


class SquarePixels:
    """Makes pixel_values [I, 3, R, R] of RGB images, as `CLIPImageProcessorPil` does."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises BundleError for a configuration that cannot be followed exactly."""
        _check(config)
        self._background = tuple(config["background"]) if config.get("do_pad") else None
        self._size: dict[str, int] | None = None
        if config["do_resize"]:
            self._size = dict(config["size"])
            self._resample = PIL.Image.Resampling(config["resample"])
        self._crops = bool(config["do_center_crop"])
        # Where nothing brings images to a size of its own, they are taken as they are.
        own = config["crop_size"] if self._crops else self._size
        self.own_side = None if own is None else max(own.values())
        """Pixels of the pictures that the checkpoint itself makes; None: as they come."""
        self._levels = levels(config)
        shorter = min(self._size.values()) if self._size else 0
        self.detail = shorter / (self.own_side or 1)
        """Times the resolution, what the shorter side is scaled to at most; 0: it is not scaled."""

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
        given = image.size
        if self._background is not None:
            image = _padded(image, self._background)
        if self._size is not None:
            assert self.own_side is not None
            edges = {key: round(px * resolution / self.own_side) for key, px in self._size.items()}
            dimensions = _dimensions(image.size, edges)
            if min(dimensions) < 1:
                raise too_thin(given, "nothing would be left of it")
            _check_area(given, dimensions)
            image = image.resize(dimensions, resample=self._resample)
        pixels: Pixels = np.asarray(image)
        if self._crops:
            pixels = _center_crop(pixels, resolution)
        if pixels.shape != (resolution, resolution, 3):
            raise InputError(
                f"an image has {given[0]} x {given[1]} pixels and this bundle does not bring it to "
                f"a square; pass {resolution} x {resolution}"
            )
        return pixels


def _padded(image: PIL.Image.Image, background: tuple[int, ...]) -> PIL.Image.Image:
    """In the middle of a square as large as its longer side."""
    side = max(image.size)
    if image.width == image.height:
        return image
    check_aspect(image.size)
    _check_area(image.size, (side, side))
    square = PIL.Image.new("RGB", (side, side), background)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _dimensions(given: tuple[int, int], edges: Mapping[str, int]) -> tuple[int, int]:
    """(width, height) after resizing; lengths are cut, not rounded, as HF does."""
    if "height" in edges:
        return edges["width"], edges["height"]
    check_aspect(given)
    width, height = given
    if "max_height" in edges:
        scale = min(edges["max_height"] / height, edges["max_width"] / width)
        return int(width * scale), int(height * scale)
    shortest, short, long = edges["shortest_edge"], min(given), max(given)
    exact: float = shortest
    if (most := edges.get("longest_edge")) is not None and long / short * shortest > most:
        exact = most * float(short) / float(long)
        shortest = round(exact)
    if most is not None and short == shortest:
        return given
    # The quotient of the axes themselves: rounding hangs on the order.
    if width <= height:
        return shortest, int(exact * height / width)
    return int(exact * width / height), shortest


def check_aspect(given: Size) -> None:
    """Raises InputError for an image too long and thin to be scaled or cut."""
    if max(given) > MAX_ASPECT_RATIO * min(given):
        raise too_thin(given, f"one side may be at most {MAX_ASPECT_RATIO} times the other")


def _check_area(given: tuple[int, int], becomes: tuple[int, int]) -> None:
    if becomes[0] * becomes[1] > MOST_MEGAPIXELS * 1_000_000:
        raise InputError(
            f"an image of {given[0]} x {given[1]} pixels would take {becomes[0]} x {becomes[1]} on "
            f"its way, at most {MOST_MEGAPIXELS} megapixels are made: scale it down, or cut it"
        )


def too_thin(given: Size, why: str) -> InputError:
    """For an image whose sides are too far apart."""
    return InputError(f"an image has {given[0]} x {given[1]} pixels; {why}: cut it into pieces")


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


def levels(config: Mapping[str, Any]) -> Floats:
    """float32 [3, 256]: what each 8-bit value becomes in each channel.

    An 8-bit image has only 256 inputs per channel, so the arithmetic, and its rounding, is done
    once: float64 for the rescaling, float32 for the rest, as HF does.
    """
    values = np.arange(256, dtype=np.float64)
    if config["do_rescale"]:
        values = values * config["rescale_factor"]
    channels = np.tile(values.astype(np.float32), (3, 1))
    if config["do_normalize"]:
        mean = np.asarray(config["image_mean"], np.float32)[:, None]
        std = np.asarray(config["image_std"], np.float32)[:, None]
        channels = (channels - mean) / std
    return channels


def _check(config: Mapping[str, Any]) -> None:
    """Raises BundleError for a configuration that this preprocessor cannot follow exactly."""
    check_keys(config, (*CONFIG_KEYS, *_OPTIONAL))
    _check_steps(config, _NEEDS)
    if config.get("do_pad"):
        _check_numbers("background", config["background"], _is_level)
    if config["do_resize"]:
        _check_resize(config)
    if config["do_center_crop"] and not _is_square(config["crop_size"]):
        raise wrong(f"has crop_size {shown(config['crop_size'])}; accepted: equal height and width")
    _check_values(config)


def check_keys(config: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises BundleError for a key that is not `known`."""
    if unknown := sorted(map(str, set(config) - set(known))):
        raise wrong(
            f"has {', '.join(name[:40] for name in unknown[:5])}, which this version does not know"
        )


def check_levels(config: Mapping[str, Any]) -> None:
    """Raises BundleError where `levels` is not told all that it needs."""
    _check_steps(config, ("do_rescale", "do_normalize"))
    _check_values(config)


def check_resample(config: Mapping[str, Any]) -> None:
    """Raises BundleError for a filter that Pillow does not have."""
    accepted = sorted(int(resample) for resample in PIL.Image.Resampling)
    if type(config.get("resample")) is not int or config["resample"] not in accepted:
        raise wrong(f"has resample {shown(config.get('resample'))}; accepted: {accepted}")


def _check_steps(config: Mapping[str, Any], steps: Iterable[str]) -> None:
    for step in steps:
        if step in _OPTIONAL and step not in config:
            continue
        if not isinstance(config.get(step), bool):
            raise wrong(f"has {step} {shown(config.get(step))}; accepted: true, false")
        if missing := [key for key in _NEEDS[step] if config[step] and config.get(key) is None]:
            raise wrong(f"has {step} but no {', '.join(missing)}")


def _check_values(config: Mapping[str, Any]) -> None:
    if config["do_rescale"] and not _is_number(config["rescale_factor"]):
        raise wrong(f"has rescale_factor {shown(config['rescale_factor'])}; accepted: a number")
    if config["do_normalize"]:
        _check_numbers("image_mean", config["image_mean"], _is_number)
        _check_numbers("image_std", config["image_std"], _is_positive)


def _check_resize(config: Mapping[str, Any]) -> None:
    size = config["size"]
    if not any(_is_pixels(size, keys) for keys in _SIZES):
        accepted = "; ".join(", ".join(sorted(keys)) for keys in _SIZES)
        raise wrong(f"has size {shown(size)}; accepted: {accepted}")
    fixed = _is_square(size)
    padded = config.get("do_pad") and set(size) == {"shortest_edge"}
    if not config["do_center_crop"] and not fixed and not padded:
        raise wrong(f"resizes to {size} without a crop, so images keep their shape")
    check_resample(config)


def _check_numbers(key: str, values: Any, good: Callable[[object], bool]) -> None:
    if not isinstance(values, (list, tuple)) or len(values) != 3 or not all(map(good, values)):
        raise wrong(f"has {key} {shown(values)}; accepted: three numbers")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST  # type: ignore[arg-type]


def _is_positive(value: object) -> bool:
    return _is_number(value) and value > 0  # type: ignore[operator]


def _is_level(value: object) -> bool:
    return type(value) is int and 0 <= value < 256


def _is_pixels(value: object, keys: set[str]) -> bool:
    """Whether `value` maps exactly `keys` to numbers of pixels."""
    return (
        isinstance(value, Mapping)
        and set(value) == keys
        and all(type(edge) is int and 0 < edge <= MOST_PIXELS for edge in value.values())
    )


def _is_square(value: Any) -> bool:
    return _is_pixels(value, {"height", "width"}) and value["height"] == value["width"]


def wrong(found: str) -> BundleError:
    """What preprocessor.json has and should not have, as an error."""
    return BundleError(f"preprocessor.json {found}; export the bundle again")
