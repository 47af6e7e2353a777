"""Images are recognised by what came, and decoded when the tower wants them, in no more detail."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tightrope as tr
from tightrope.errors import InputError
from tightrope.latency import SCALES
from tightrope.runtime import held, images
from tightrope.runtime.held import headers_of, hold_images
from tightrope.runtime.images import load_image
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.model import Model
from tightrope.runtime.options import Content, Frame

Find = Callable[[str], Path]
EVER = tr.Budget(deadline_ms=1e9)
"""A budget that everything keeps."""


def smooth(width: int, height: int) -> PIL.Image.Image:
    """Soft colours, as most of a photograph is."""
    corners = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    return PIL.Image.fromarray(corners).resize((width, height), PIL.Image.Resampling.BICUBIC)


def jpeg(image: PIL.Image.Image, **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90, **more)
    return stream.getvalue()


def png(image: PIL.Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The scales of what is decoded from now on."""
    scales: list[int] = []

    def watched(content: Content, scale: int) -> PIL.Image.Image:
        scales.append(scale)
        return images.decoded(content, scale)

    monkeypatch.setattr(held, "decoded", watched)
    return scales


@pytest.fixture
def model(bundle: Find) -> Model:
    return tr.load(bundle("llava"), "onnxruntime", 1, live=False)


def test_equal_files_are_one_image_wherever_they_lie(tmp_path: Path) -> None:
    data = jpeg(smooth(40, 30))
    (tmp_path / "a.jpg").write_bytes(data)
    (tmp_path / "b").write_bytes(data)
    frame = Frame(data, seconds=0.0, behind=None)
    same = hold_images([data, tmp_path / "a.jpg", str(tmp_path / "b"), frame])
    assert len({entry.digest for entry in same}) == 1
    others = hold_images([jpeg(smooth(40, 31)), png(smooth(40, 30)), load_image(data)])
    assert len({entry.digest for entry in [*same, *others]}) == 4


def test_nothing_is_decoded_to_be_recognised(decoded: list[int], model: Model) -> None:
    data = png(smooth(40, 30))
    first = model.generate("what is it?", [data], max_tokens=3)
    assert decoded == [1]
    again = model.generate("what is it?", [data], max_tokens=3)
    assert decoded == [1] and again.token_ids == first.token_ids
    model.forget_images()
    model.generate("what is it?", [data], max_tokens=3)
    assert decoded == [1, 1]


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    detail=st.sampled_from([1.0, 8 / 7]),
    resolution=st.sampled_from([28, 56, 84]),
    orientation=st.sampled_from([1, 6]),
)
def test_no_less_is_decoded_than_the_resolution_needs(
    width: int, height: int, detail: float, resolution: int, orientation: int
) -> None:
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    data = jpeg(smooth(width, height), exif=exif)
    (entry,) = hold_images([data], detail)
    whole, (pixels,) = load_image(data), entry.pictures(resolution)
    assert entry.size == whole.size
    scale = entry.header.scale(resolution)
    assert scale in (1, *SCALES)
    assert pixels.size == tuple(-(-side // scale) for side in whole.size)
    assert scale == 1 or min(pixels.size) >= detail * resolution
    spare = min(whole.size) / (detail * resolution)
    assert spare < 2 or scale > min(8, spare) / 2
    assert entry.header.megapixels(resolution) <= pixels.width * pixels.height / 1e6


def test_what_is_left_out_is_hardly_seen(model: Model, parts_of: Callable[[Model], Loaded]) -> None:
    vision = parts_of(model).vision
    assert vision is not None and vision.detail == 1.0
    data = jpeg(smooth(1920, 1080))
    whole, less = (hold_images([data], detail)[0].pictures(56)[0] for detail in (0.0, 1.0))
    assert whole.size == (1920, 1080) and less.size == (240, 135)
    prepare = vision._prepare
    exact, near = (prepare([image], 56)["pixel_values"] for image in (whole, less))
    assert 0 < np.abs(exact - near).mean() < 0.01 * exact.std()


def test_only_a_budget_leaves_detail_out(decoded: list[int], planned: Model) -> None:
    large, small = jpeg(smooth(640, 480)), jpeg(smooth(60, 50))
    point = tr.OperatingPoint(resolution=28)
    planned.generate("what?", max_tokens=2, budget=EVER)  # it warms up
    decoded.clear()
    for image, scales in ((large, [1, 8]), (small, [1, 1]), (png(smooth(640, 480)), [1])):
        for budget in (None, EVER):
            planned.generate("what?", [image], max_tokens=2, point=point, budget=budget)
        assert decoded == scales
        decoded.clear()
    found = planned.count("what?", [large], point=point, budget=EVER).work.images
    assert found == headers_of([large], 1.0) and found[0].scale(28) == 8
    assert planned.count("what?", [large], point=point).work.images[0].scale(28) == 1


def test_a_file_too_large_to_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MOST_ENCODED_BYTES", 100)
    file = tmp_path / "large.png"
    file.write_bytes(png(smooth(40, 30)))
    with pytest.raises(InputError, match=r"large\.png' has \d+ bytes; at most 100"):
        hold_images([file])


def test_damage_behind_the_header_is_told_before_the_tower_runs(
    tmp_path: Path, model: Model
) -> None:
    file = tmp_path / "cut.jpg"
    noise = PIL.Image.effect_noise((400, 300), 80).convert("RGB")
    file.write_bytes(jpeg(noise)[:9000])
    with pytest.raises(InputError, match=r"cut\.jpg' is damaged or cut short"):
        model.generate("what is it?", [file], max_tokens=3)
