from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from tightrope.errors import InputError
from tightrope.runtime import images
from tightrope.runtime.images import image_digest, load_image, read_content


def pixels(mode: str, width: int = 7, height: int = 5) -> PIL.Image.Image:
    rng = np.random.default_rng(0)
    rgba = PIL.Image.fromarray(rng.integers(0, 256, (height, width, 4), np.uint8))
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode)


def hugging_face(path: Path) -> npt.NDArray[Any]:
    image_utils = pytest.importorskip(
        "transformers.image_utils", reason="the oracle is Hugging Face's own code"
    )
    return np.asarray(image_utils.load_image(str(path)))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "png"), ("RGBA", "png"), ("LA", "png"), ("L", "png"), ("P", "png"), ("1", "png"),
        ("CMYK", "tiff"), ("LAB", "tiff"), ("RGB", "webp"), ("L", "jpeg"),
    ],
)  # fmt: skip
def test_every_colour_mode_loads_as_hugging_face_loads_it(
    mode: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"image.{suffix}"
    pixels(mode).save(path)
    loaded = load_image(path)
    assert loaded.mode == "RGB"
    expected = hugging_face(path)
    np.testing.assert_array_equal(np.asarray(loaded), expected)
    np.testing.assert_array_equal(np.asarray(load_image(str(path))), expected)
    np.testing.assert_array_equal(np.asarray(load_image(path.read_bytes())), expected)
    np.testing.assert_array_equal(np.asarray(load_image(PIL.Image.open(path))), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    image = pixels("RGB")
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    image.save(path, exif=exif)
    loaded = load_image(path)
    assert loaded.size == ((5, 7) if orientation >= 5 else (7, 5))
    np.testing.assert_array_equal(np.asarray(loaded), hugging_face(path))


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    path = tmp_path / "depth.png"
    PIL.Image.fromarray(np.array([[0, 255, 256, 0x8012, 65535]], np.uint16)).save(path)
    assert np.asarray(load_image(path))[0, :, 0].tolist() == [0, 0, 1, 0x80, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_mode_without_a_range_is_refused(mode: str) -> None:
    with pytest.raises(InputError, match="scale it to 8 bits"):
        load_image(PIL.Image.new(mode, (2, 2)))


@pytest.mark.parametrize("channels", [None, 3, 4])
def test_arrays_load_channels_last(channels: int | None) -> None:
    shape = (5, 7) if channels is None else (5, 7, channels)
    array = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    loaded = np.asarray(load_image(array))
    assert loaded.shape == (5, 7, 3)
    expected = np.stack([array] * 3, -1) if channels is None else array[:, :, :3]
    np.testing.assert_array_equal(loaded, expected)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((4, 4, 1, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4,), np.uint8),
    ],
)
def test_other_arrays_are_refused_with_what_is_accepted(array: npt.NDArray[Any]) -> None:
    with pytest.raises(InputError, match=r"accepted: uint8 \[H, W, 3\]"):
        load_image(array)


def test_the_result_is_independent_of_its_source() -> None:
    array = np.zeros((2, 2, 3), np.uint8)
    image = PIL.Image.fromarray(array)
    from_array, from_image = load_image(array), load_image(image)
    array[:] = 9
    image.putpixel((0, 0), (9, 9, 9))
    assert not np.asarray(from_array).any()
    assert not np.asarray(from_image).any()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_a_file_of_several_frames_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"moving.{suffix}"
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"moving.*2 frames.*separate images"):
        load_image(path)


def test_a_phone_photograph_with_a_second_view_loads_its_first(tmp_path: Path) -> None:
    path = tmp_path / "photo.mpo"
    views = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    views[0].save(path, format="MPO", save_all=True, append_images=views[1:])
    red, _, blue = np.asarray(load_image(path))[0, 0]
    assert red > 200 > 50 > blue


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp", "bmp", "gif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_short_is_refused_by_name(suffix: str, share: float, tmp_path: Path) -> None:
    whole = io.BytesIO()
    pixels("RGB", 64, 64).save(whole, format=suffix)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * share)])
    with pytest.raises(InputError, match=f"cut.{suffix}"):
        load_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_bytes_that_are_no_image_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fake.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"fake\.png"):
        load_image(path)
    with pytest.raises(InputError, match="the encoded image"):
        load_image(content)


@pytest.mark.parametrize("name", ["missing.png", "", "\0", "."])
def test_a_path_to_no_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a file|is no path"):
        load_image(f"{tmp_path}/{name}")


def encoded(image: PIL.Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    "form",
    [
        "data:image/png;base64,{}",
        "DATA:;BASE64,{}",
        "data:image/png;charset=x;base64,{}",
        "data:image/png;base64,\n {} \n",
    ],
)
def test_a_data_url_is_the_image_that_it_holds(form: str) -> None:
    content = encoded(pixels("RGB"))
    url = form.format(base64.b64encode(content).decode())
    np.testing.assert_array_equal(np.asarray(load_image(url)), np.asarray(load_image(content)))
    quoted = "data:image/png," + quote(content)
    np.testing.assert_array_equal(np.asarray(load_image(quoted)), np.asarray(load_image(content)))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("data:", "no comma"),
        ("data:image/png;base64", "no comma"),
        ("data:image/png;base64,", "no format that Pillow reads"),
        ("data:image/png;base64,%%%", "is no data URL"),
        ("data:image/png;base64,AAA", "is no data URL"),
        ("data:image/png;base64,\u00e9" + "A" * 9000, "is no data URL"),
        ("data:image/png;base64," + "A" * 8000, "no format that Pillow reads"),
        ("data:text/plain,hello", "no format that Pillow reads"),
    ],
)
def test_a_data_url_without_an_image_is_shown_by_its_beginning(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_image(url)
    assert len(str(caught.value)) < 250


def test_the_limits_of_other_images_are_those_of_data_urls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "MAX_MEGAPIXELS", 0.00002)
    url = "data:image/png;base64," + base64.b64encode(encoded(pixels("RGB"))).decode()
    with pytest.raises(InputError, match="7 x 5 pixels"):
        load_image(url)
    monkeypatch.undo()
    frames = [pixels("P"), pixels("P").rotate(90)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="2 frames"):
        load_image("data:image/gif;base64," + base64.b64encode(file.getvalue()).decode())


@pytest.mark.parametrize("url", ["http://x.example/a.png", "HTTPS://x.example/" + "a" * 5000])
def test_a_web_address_is_told_as_one(url: str) -> None:
    with pytest.raises(
        InputError, match=r"(?i)image 'http.* is a web address; download it"
    ) as caught:
        load_image(url)
    assert len(str(caught.value)) < 150


def test_something_else_is_refused() -> None:
    with pytest.raises(InputError, match="is a int"):
        load_image(3)  # type: ignore[arg-type]


def test_a_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    PIL.Image.new("1", (9000, 9000)).save(path)

    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PIL.Image.Image, "load", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(InputError, match="9000 x 9000 pixels; at most 64 megapixels"):
        load_image(path)
    with pytest.raises(InputError, match="at most 64 megapixels"):
        load_image(np.broadcast_to(np.zeros((), np.uint8), (9000, 9000)))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("megapixels_at_once", [30, 60])
def test_a_bomb_that_pillow_refuses_itself_is_an_input_error(
    megapixels_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    PIL.Image.new("1", (9000, 9000)).save(path)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", megapixels_at_once * 1_000_000)
    with pytest.raises(InputError, match="at most 64 megapixels"):
        load_image(path)


def test_the_largest_accepted_image_is_named_in_megapixels() -> None:
    assert images.MAX_MEGAPIXELS == 64


def digest_of(source: Any) -> str:
    return image_digest(read_content(source))


def test_the_digest_tells_images_apart_and_nothing_else(tmp_path: Path) -> None:
    image = pixels("RGB")
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.bmp")
    digests = {digest_of(load_image(tmp_path / name)) for name in ("a.png", "b.bmp")}
    assert len(digests) == 1
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    files = {digest_of(tmp_path / name) for name in ("a.png", "b.bmp", "c.png")}
    assert len(digests | files) == 3
    changed = image.copy()
    changed.putpixel((3, 3), (1, 2, 3))
    turned = PIL.Image.frombytes("RGB", (5, 7), image.tobytes())
    assert len({*digests, digest_of(changed), digest_of(turned)}) == 3
