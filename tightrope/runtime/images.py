"""Images as users hand them in, decoded to what every preprocessor takes: 8-bit RGB."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from tightrope.arrays import Array
from tightrope.checks import check_path, shown
from tightrope.errors import InputError
from tightrope.foreign import translated
from tightrope.latency import SourceImage
from tightrope.runtime.options import Content, ImageSource

_ENCODED = "the encoded image"
_ACCEPTED = "a path, a data URL, encoded bytes, a PIL image or a uint8 array [H, W, 3]"
MAX_MEGAPIXELS = 64
"""Largest image that is decoded: 192 MB as RGB, already much on a board of 8 GB."""
MOST_ENCODED_BYTES = 1 << 29
"""Of a file: as many pixels as are decoded, uncompressed at 16 bits, take less."""

Read = TypeVar("Read")
Reader = Callable[[PIL.Image.Image, str, int], Read]
"""From an opened image, its name, and the bytes that it is encoded in: 0 for pixels."""
_SIDES = (256, 257)
"""Tags of a TIFF with its width and height."""
_ON_ITS_SIDE = (5, 6, 7, 8)
"""Values of EXIF orientation by which an image is turned by a quarter."""
_BOMB = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)


def check_list(images: Sequence[ImageSource]) -> None:
    """Raises InputError for what is no list of images, such as one image alone."""
    one = isinstance(images, (str, bytes, np.ndarray))
    if one or not isinstance(images, Sequence):
        kind = type(images).__name__
        raise InputError(f"images is a {kind}; accepted: a list of images, [image] for one")


def load_image(source: ImageSource) -> PIL.Image.Image:
    """The image as 8-bit RGB, upright, independent of what it came from.

    source: a path, a data URL, an encoded file's bytes, a PIL image, or uint8 [H, W, 3], [H, W, 4]
    or [H, W].
    Pixels equal those of Hugging Face's `load_image`: EXIF orientation is applied and an alpha
    channel is dropped, not blended. 16-bit grey is the exception: its high byte is taken, as
    Pillow does for 16-bit colour, where a plain conversion would clip nearly all of it to white.
    Raises InputError for a file that is missing, damaged, animated, empty or too large.
    """
    return _read(source, _decode)


def read_content(source: ImageSource) -> Content:
    """An image with nothing decoded, or the pixels of `load_image` where nothing is encoded.

    Raises InputError as `image_header` does, and for a file that is too large to be held.
    """
    if isinstance(source, Content):
        return source
    if isinstance(source, bytes):
        return encoded_content(source)
    if isinstance(source, str) and _is_data_url(source):
        return encoded_content(from_data_url(source), shown(source))
    name, header = _read(source, lambda image, name, size: (name, _header(image, name, size)))
    if not header.encoded_bytes:
        return Content(load_image(source), name, header)
    _check_holdable(name, header.encoded_bytes)
    with translated(InputError, f"image {name} cannot be read", "change its permissions"):
        return Content(Path(source).read_bytes(), name, header)  # type: ignore[arg-type]  # a path


def encoded_content(data: bytes, name: str = _ENCODED) -> Content:
    """An encoded image, of which its header is read; raises InputError as `read_content` does.

    name: what errors call it.
    """
    _check_holdable(name, len(data))
    return Content(data, name, _open(io.BytesIO(data), name, len(data), _header))


def decoded(content: Content, scale: int) -> PIL.Image.Image:
    """The pixels of `load_image`, each side divided by `scale`.

    scale: 1, or for a JPEG one of SCALES: fewer pixels are made of each of its blocks, which is
    less work than making all of them and scaling these.
    """
    if not isinstance(content.data, bytes):
        return content.data

    def decode(image: PIL.Image.Image, name: str, num_bytes: int) -> PIL.Image.Image:
        if scale > 1:
            width, height = image.size
            image.draft(image.mode, (width // scale, height // scale))
        return _decode(image, name, num_bytes)

    return _open(io.BytesIO(content.data), content.name, len(content.data), decode)


def image_header(source: ImageSource) -> SourceImage:
    """Format and upright size of an image of `load_image`, of which nothing is decoded.

    Raises InputError as it does, but for damage behind the header.
    """
    return source.header if isinstance(source, Content) else _read(source, _header)


def _read(source: ImageSource, reader: Reader[Read]) -> Read:
    """What `reader` says of the opened image."""
    if isinstance(source, Content):
        source = source.data
    if isinstance(source, np.ndarray):
        return reader(_from_array(source), "the array", 0)
    if isinstance(source, PIL.Image.Image):
        return reader(source, getattr(source, "filename", "") or "the image", 0)
    if isinstance(source, bytes):
        return _open(io.BytesIO(source), _ENCODED, len(source), reader)
    if not isinstance(source, (str, Path)):
        raise InputError(f"an image is a {type(source).__name__}; accepted: {_ACCEPTED}")
    if isinstance(source, str) and _is_data_url(source):
        content = from_data_url(source)
        return _open(io.BytesIO(content), shown(source), len(content), reader)
    if isinstance(source, str) and source[:8].lower().startswith(("http://", "https://")):
        raise InputError(f"image {shown(source)} is a web address; download it first")
    path = check_path("an image", source, _ACCEPTED)
    name = repr(str(path))
    with translated(InputError, f"image {name} cannot be read", "change its permissions"):
        # Also keeps out pipes and devices, whose opening may block for ever.
        is_file = path.is_file()
        num_bytes = path.stat().st_size if is_file else 0
    if not is_file:
        raise InputError(f"image {shown(str(path))} is not a file; check the path")
    return _open(path, name, num_bytes, reader)


def _is_data_url(source: str) -> bool:
    return source[:5].lower() == "data:"


def _check_holdable(name: str, num_bytes: int) -> None:
    if num_bytes > MOST_ENCODED_BYTES:
        raise InputError(
            f"image {name} has {num_bytes} bytes; at most {MOST_ENCODED_BYTES} are read: save it "
            "as PNG or JPEG"
        )


def image_digest(content: Content, detail: float = 0.0) -> str:
    """A hash: images of equal files share it, and so do those of equal pixels.

    detail: as of `SourceImage`, what is decoded of the file at least.
    """
    if isinstance(content.data, bytes):
        kind, data = f"encoded, {detail} of it", content.data
    else:
        kind, data = f"{content.data.mode} {content.data.size}", content.data.tobytes()
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    digest.update(data)
    return digest.hexdigest()


def from_data_url(url: str) -> bytes:
    """What a data URL (RFC 2397) holds; raises InputError showing its beginning."""
    head, comma, data = url.partition(",")
    with translated(InputError, f"image {shown(url)} is no data URL", "encode it as base64"):
        if not comma:
            raise ValueError("it has no comma before the data")
        return _of_base64(data) if head.lower().endswith(";base64") else unquote_to_bytes(data)


def _of_base64(text: str) -> bytes:
    """Raises ValueError for what is none."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # in lines, or escaped: seldom, and to look for it costs as much as decoding
        content = unquote_to_bytes(text)
        return base64.b64decode(b"".join(content.split()), validate=True)


def _open(file: Path | io.BytesIO, name: str, num_bytes: int, reader: Reader[Read]) -> Read:
    with _damaged(name):
        try:
            opened = PIL.Image.open(file)
        except PIL.UnidentifiedImageError as error:
            raise InputError(
                f"image {name} is in no format that Pillow reads, or damaged; save it as PNG or "
                "JPEG"
            ) from error
        except _BOMB as error:
            raise _too_large(name, "far more pixels than that") from error
    with opened:
        return reader(opened, name, num_bytes)


def _check_header(image: PIL.Image.Image, name: str) -> None:
    """Raises InputError for an opened image that is empty, too large or animated."""
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"image {name} has {width} x {height} pixels; it needs at least one")
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise _too_large(name, f"{width} x {height} pixels")
    with _damaged(name):
        frames = getattr(image, "n_frames", 1)
        # Phones write MPO: an ordinary photograph with a depth map or a second view behind it.
        if frames > 1 and image.format != "MPO":
            raise InputError(
                f"image {name} has {frames} frames; pass the frames you mean as separate images"
            )


def _header(image: PIL.Image.Image, name: str, num_bytes: int) -> SourceImage:
    _check_header(image, name)
    with _damaged(name):
        width, height = _upright_size(image)
    # An MPO is a JPEG with another behind it.
    kind = "JPEG" if image.format == "MPO" else image.format
    return SourceImage(format=kind or "array", width=width, height=height, encoded_bytes=num_bytes)


def _upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    """Width and height as `_to_rgb` will have them."""
    # A PNG's orientation would be looked for behind its pixels. TIFF's size is turned already by
    # Pillow 11 and not by Pillow 10; the tags hold it as it is stored.
    if image.format == "PNG" and "exif" not in image.info:
        return image.size
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    width, height = (tags.get(tag, side) for tag, side in zip(_SIDES, image.size, strict=True))
    if image.getexif().get(PIL.ExifTags.Base.Orientation) in _ON_ITS_SIDE:
        return height, width
    return width, height


def _decode(image: PIL.Image.Image, name: str, num_bytes: int) -> PIL.Image.Image:
    """The opened image's pixels; its header is judged before anything is decoded."""
    _check_header(image, name)
    with _damaged(name):
        image.load()
        return _to_rgb(image, name)


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


def _damaged(name: str) -> AbstractContextManager[None]:
    """Inside, whatever Pillow's decoders let through is an InputError."""
    return translated(InputError, f"image {name} is damaged or cut short", "copy or save it again")
