"""The numpy half of Qwen's towers: pixels, places and what a bundle says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tightrope.errors import BundleError, InputError
from tightrope.inputs.layout import Visual, visual_tokens
from tightrope.inputs.prepare import VisionInfo, create_tower
from tightrope.inputs.prepare.patches import Patches

SIZES = {
    "patch_size": 6,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "least_pixels": 576,
    "window": 2,
    "table": 0,
    "deepstack": 0,
}
INFO = VisionInfo(
    kind="qwen_vl",
    image_token_id=4,
    image_token="<image>",
    resolutions=(72, 96, 48),
    signals=(),
    sizes=SIZES,
)
CONFIG: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 576, "longest_edge": 57600},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "patch_size": 6,
    "temporal_patch_size": 2,
    "merge_size": 2,
}


def image(width: int, height: int) -> PIL.Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    resolution=st.sampled_from(INFO.resolutions),
)
def test_pixels_equal_hugging_face_to_the_bit(width: int, height: int, resolution: int) -> None:
    module = pytest.importorskip(
        "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl",
        reason="the oracle is Hugging Face's own code",
    )
    assume(max(width, height) <= 200 * min(width, height))
    tower = create_tower(replace(INFO, sizes={**SIZES, "window": 0}))
    size = {"shortest_edge": min(576, resolution**2), "longest_edge": resolution**2}
    processor = module.Qwen2VLImageProcessorPil(**{**CONFIG, "size": size})
    theirs = processor([image(width, height)], return_tensors="np")
    _, rows, columns = theirs["image_grid_thw"][0].tolist()
    if rows * columns > 4 * tower.most_tokens(resolution):
        with pytest.raises(InputError, match="there are at most"):
            tower.layout((width, height), resolution)
        return
    inputs = tower.prepare(CONFIG, {})([image(width, height)], resolution)
    pixels = inputs["pixel_values"]
    np.testing.assert_array_equal(pixels.reshape(-1, pixels.shape[-1]), theirs["pixel_values"])
    assert pixels.dtype == np.float32
    assert inputs["cu_seqlens"].tolist() == [0, rows * columns]
    layout = tower.layout((width, height), resolution)
    assert layout == (Visual(rows * columns // 4, columns // 2),)


def test_windows_stand_one_behind_the_other_and_come_back_row_by_row() -> None:
    tower, plain = create_tower(INFO), create_tower(replace(INFO, sizes={**SIZES, "window": 0}))
    picture = image(85, 41)
    ordered = tower.prepare(CONFIG, {})([picture], 72)
    inputs = plain.prepare(CONFIG, {})([picture], 72)
    bounds = ordered["cu_window_seqlens"]
    columns, rows = 7, 3
    assert len(inputs["pixel_values"]) == columns * rows
    assert np.diff(bounds).tolist() == [16, 16, 16, 8, 8, 8, 8, 4]
    assert not np.array_equal(ordered["pixel_values"], inputs["pixel_values"])
    for name in ("pixel_values", "patch_places"):
        back = tower.tokens({name: ordered[name][None]}, picture.size, 72)[name][0]
        np.testing.assert_array_equal(back, inputs[name])


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("table", [0, 5])
@pytest.mark.parametrize("deepstack", [0, 3])
def test_rows_inputs_and_ranges_agree(window: int, table: int, deepstack: int) -> None:
    sizes = {**SIZES, "window": window, "table": table, "deepstack": deepstack}
    tower = create_tower(replace(INFO, sizes=sizes))
    for width, height in ((90, 41), (12, 12), (864, 6), (300, 20)):
        inputs = tower.prepare(CONFIG, {})([image(width, height)], 72)
        ranges, rows = tower.ranges(), tower.input_rows()
        assert set(inputs) == {row.name for row in rows}
        lengths: dict[str, int] = {}
        for row in rows:
            array = inputs[row.name]
            assert array.dtype == {"activation": "float32"}.get(row.dtype, row.dtype)
            for axis, length in zip(row.axes, array.shape, strict=True):
                assert length == (lengths.setdefault(axis, length) if axis in ranges else axis)
        for axis, length in lengths.items():
            assert ranges[axis].least <= length <= ranges[axis].most, axis
        assert lengths["V"] == visual_tokens(tower.layout((width, height), 72))
    names = [row.name for row in tower.output_rows(32)]
    assert names == ["visual_embeds", *(["deepstack"] if deepstack else [])]
    assert set(tower.token_ranges()) == {"V"}


def test_a_square_of_the_budget_is_not_scaled() -> None:
    tower = create_tower(INFO)
    for side in INFO.resolutions:
        size = tower.trial_size(side)
        assert visual_tokens(tower.layout(size, side)) == tower.most_tokens(side)


@pytest.mark.parametrize("count", [1, 2])
def test_frames_fill_a_patch_as_a_video_does(count: int) -> None:
    module = pytest.importorskip(
        "transformers.models.qwen3_vl.video_processing_qwen3_vl",
        reason="the oracle is Hugging Face's own code",
    )
    torch = pytest.importorskip("torch", reason="which reads videos")
    still = {**SIZES, "window": 0}
    tower = create_tower(replace(INFO, sizes=still, together=2))
    pictures = [image(48, 36).rotate(90 * turn) for turn in range(count)]
    ours = tower.prepare(CONFIG, {})(pictures, 72)["pixel_values"]
    mean, deviation = (np.float32(CONFIG[name]) for name in ("image_mean", "image_std"))
    frames = [(np.asarray(one) / 255 - mean) / deviation for one in pictures]
    video = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None].contiguous()
    sizes = {"patch_size": 6, "merge_size": 2, "temporal_patch_size": 2}
    theirs, *grid = module.Qwen3VLVideoProcessor.patchify(None, video, **sizes)
    assert grid == [1, 6, 8]
    np.testing.assert_allclose(ours.reshape(theirs.shape[1:]), theirs[0], atol=1e-6)


def test_a_bundle_whose_patches_hold_fewer_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="3 frames are read together, the tower takes 2"):
        create_tower(replace(INFO, together=3))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no scaling": ({"do_resize": False}, "has do_resize False; accepted: true"),
    "a side instead of areas": (
        {"size": {"height": 9, "width": 9}}, "has size .*; accepted: short"
    ),
    "areas the wrong way round": (
        {"size": {"shortest_edge": 9, "longest_edge": 8}}, "accepted: two areas"
    ),
    "a filter": ({"resample": 9}, "has resample 9"),
    "a patch of nothing": ({"patch_size": 0}, "has patch_size 0; accepted"),
    "half a patch": ({"patch_size": 1.5}, "has patch_size 1.5; accepted"),
    "a crop": ({"do_center_crop": True}, "has do_center_crop, which this version"),
    "no mean": ({"image_mean": None}, "has do_normalize but no image_mean"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_configuration_that_is_not_followed_is_named(what: str) -> None:
    change, said = WRONG[what]
    with pytest.raises(BundleError, match=said):
        Patches({**CONFIG, **change})


def test_patches_of_another_bundle_are_told() -> None:
    with pytest.raises(BundleError, match=r"preprocessor\.json has .*bundle\.json has"):
        create_tower(INFO).prepare({**CONFIG, "merge_size": 1}, {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sizes": {"patch_size": 6}}, "has the sizes"),
        ({"sizes": {**SIZES, "merge_size": 0}}, "no sizes such as"),
        ({"sizes": {**SIZES, "window": -1}}, "no sizes such as"),
        ({"resolutions": ()}, "resolutions are"),
        ({"resolutions": (72, 50)}, "cells 12"),
    ],
)
def test_sizes_that_no_export_writes_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        create_tower(replace(INFO, **change))
