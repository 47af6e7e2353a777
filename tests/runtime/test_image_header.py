"""What an image costs by is read from its header, and what no request could use is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest

from tightrope.errors import InputError
from tightrope.runtime.images import MAX_MEGAPIXELS, image_header, load_image

RED = PIL.Image.new("RGB", (50, 30), (200, 10, 10))


def encoded(format: str, image: PIL.Image.Image = RED, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_a_file_is_known_by_format_size_and_bytes(tmp_path: Path, format: str) -> None:
    data = encoded(format)
    file = tmp_path / "picture"
    file.write_bytes(data)
    for source in (data, file, str(file)):
        header = image_header(source)
        assert (header.format, header.width, header.height) == (format, 50, 30)
        assert header.encoded_bytes == len(data)
        assert header.megapixels(None) == pytest.approx(0.0015)


def test_pixels_have_nothing_to_decode() -> None:
    for source in (np.zeros((30, 50, 3), np.uint8), np.zeros((30, 50), np.uint8), RED):
        header = image_header(source)
        assert (header.format, header.width, header.height) == ("array", 50, 30)
        assert header.encoded_bytes == 0


def test_a_photograph_with_a_second_view_costs_as_a_jpeg() -> None:
    several = encoded("MPO", save_all=True, append_images=[RED])
    assert image_header(several).format == "JPEG"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_on_its_side_has_the_size_that_it_is_decoded_to(
    format: str, orientation: int
) -> None:
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    data = encoded(format, exif=exif)
    header = image_header(data)
    assert (header.width, header.height) == load_image(data).size
    assert header.width == (30 if orientation > 4 else 50)


def test_damage_behind_the_header_is_not_seen() -> None:
    data = encoded("JPEG", PIL.Image.effect_noise((400, 300), 80).convert("RGB"))
    cut = data[: len(data) // 2]
    assert image_header(cut).width == 400
    with pytest.raises(InputError, match="damaged or cut short"):
        load_image(cut)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "no format"),
        (b"hello", "no format"),
        ("no/such/file.png", "is not a file"),
        ("null\0byte.png", "is no path"),
        (7, "an image is a int"),
        ("data:image/png,none", "no format"),
        (np.zeros((3, 3, 3), np.float32), "uint8"),
        (np.zeros((0, 3, 3), np.uint8), "uint8"),
        (encoded("GIF", save_all=True, append_images=[RED.rotate(90)]), "2 frames"),
        (PIL.Image.new("1", (MAX_MEGAPIXELS * 1000 + 1, 1000)), "megapixels"),
    ],
    ids=str,
)
def test_what_no_request_could_use_is_refused_alike(source: Any, words: str) -> None:
    for read in (image_header, load_image):
        with pytest.raises(InputError, match=words):
            read(source)
