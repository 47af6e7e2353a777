"""Images as users hand them in, decoded to what every preprocessor takes: 8-bit RGB."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL.Image
import PIL.ImageOps

from tightrope.arrays import Array
from tightrope.errors import InputError
from tightrope.latency import SourceImage
from tightrope.runtime.options import ImageSource

MAX_MEGAPIXELS = 64
"""Largest image that is decoded: 192 MB as RGB, already much on a board of 8 GB."""

# What Pillow's decoders let through for a file that is cut short or damaged.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
Read = TypeVar("Read")
_BOMB = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)


def check_list(images: Sequence[ImageSource]) -> None:
    """Raises InputError for what is no list of images, such as one image alone."""
    one = isinstance(images, (str, bytes, np.ndarray))
    if one or not isinstance(images, Sequence):
        kind = type(images).__name__
        raise InputError(f"images is a {kind}; accepted: a list of images, [image] for one")


def load_image(source: ImageSource) -> PIL.Image.Image:
    """The image as 8-bit RGB, upright, independent of what it came from.

    source: a path, an encoded file's bytes, a PIL image, or uint8 [H, W, 3], [H, W, 4] or [H, W].
    Pixels equal those of Hugging Face's `load_image`: EXIF orientation is applied and an alpha
    channel is dropped, not blended. 16-bit grey is the exception: its high byte is taken, as
    Pillow does for 16-bit colour, where a plain conversion would clip nearly all of it to white.
    Raises InputError for a file that is missing, damaged, animated, empty or too large.
    """
    return _read(source, _decode)


def image_header(source: ImageSource) -> SourceImage:
    """Format and size of an image of `load_image`, of which nothing is decoded.

    Raises InputError as it does, but for damage behind the header.
    """

    def header(image: PIL.Image.Image, name: str) -> SourceImage:
        _check_header(image, name)
        # An MPO is a JPEG with another behind it.
        kind = "JPEG" if image.format == "MPO" else image.format
        return SourceImage(
            format=kind or "array",
            width=image.width,
            height=image.height,
            encoded_bytes=_encoded_bytes(source),
        )

    return _read(source, header)


def _read(source: ImageSource, read: Callable[[PIL.Image.Image, str], Read]) -> Read:
    """What `read` says of the opened image and its name."""
    if isinstance(source, np.ndarray):
        return read(_from_array(source), "the array")
    if isinstance(source, PIL.Image.Image):
        return read(source, getattr(source, "filename", "") or "the image")
    if isinstance(source, bytes):
        return _open(io.BytesIO(source), "the encoded image", read)
    if not isinstance(source, (str, Path)):
        raise InputError(
            f"an image is a {type(source).__name__}; accepted: a path, encoded bytes, a PIL image "
            "or a uint8 array [H, W, 3]"
        )
    # Also keeps out pipes and devices, whose opening may block for ever.
    if "\0" in str(source) or not Path(source).is_file():
        raise InputError(f"image {str(source)!r} is not a file; check the path")
    return _open(Path(source), repr(str(source)), read)


def image_digest(image: PIL.Image.Image) -> str:
    """A hash of mode, dimensions and pixels: equal images, wherever they came from, share it."""
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()


def _encoded_bytes(source: ImageSource) -> int:
    if isinstance(source, bytes):
        return len(source)
    return Path(source).stat().st_size if isinstance(source, (str, Path)) else 0


def _open(file: Path | io.BytesIO, name: str, read: Callable[[PIL.Image.Image, str], Read]) -> Read:
    try:
        opened = PIL.Image.open(file)
    except PIL.UnidentifiedImageError as error:
        raise InputError(
            f"image {name} is in no format that Pillow reads, or damaged; save it as PNG or JPEG"
        ) from error
    except _BOMB as error:
        raise _too_large(name, "far more pixels than that") from error
    except _DAMAGED as error:
        raise _damaged(name, error) from error
    with opened:
        return read(opened, name)


def _check_header(image: PIL.Image.Image, name: str) -> None:
    """Raises InputError for an opened image that is empty, too large or animated."""
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"image {name} has {width} x {height} pixels; it needs at least one")
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise _too_large(name, f"{width} x {height} pixels")
    try:
        frames = getattr(image, "n_frames", 1)
    except _DAMAGED as error:
        raise _damaged(name, error) from error
    # Phones write MPO: an ordinary photograph with a depth map or a second view behind it.
    if frames > 1 and image.format != "MPO":
        raise InputError(
            f"image {name} has {frames} frames; pass the frames you mean as separate images"
        )


def _decode(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """The opened image's pixels; its header is judged before anything is decoded."""
    _check_header(image, name)
    try:
        image.load()
        return _to_rgb(image, name)
    except InputError:
        raise
    except _DAMAGED as error:
        raise _damaged(name, error) from error


def _to_rgb(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    # Pillow before 11.1 opens a 16-bit grey PNG as "I".
    sixteen_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    upright = PIL.ImageOps.exif_transpose(image)
    if sixteen_bit:
        grey: Array = np.asarray(upright) >> 8
        return PIL.Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(
            f"image {name} is of mode {image.mode!r}, which does not say what is black and what "
            "is white; scale it to 8 bits first"
        )
    return upright.convert("RGB")


def _from_array(array: Array) -> PIL.Image.Image:
    plane = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not plane or 0 in array.shape:
        raise InputError(
            f"an image array is {array.dtype} {list(array.shape)}; accepted: uint8 [H, W, 3], "
            "[H, W, 4] or [H, W], values 0..255, channels last"
        )
    height, width = array.shape[:2]
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise _too_large("the array", f"{width} x {height} pixels")
    return PIL.Image.fromarray(array)


def _too_large(name: str, found: str) -> InputError:
    return InputError(
        f"image {name} has {found}; at most {MAX_MEGAPIXELS} megapixels are decoded: "
        "scale it down first"
    )


def _damaged(name: str, error: BaseException) -> InputError:
    return InputError(f"image {name} is damaged or cut short ({error}); copy or save it again")
