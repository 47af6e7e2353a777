from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import BundleError, InputError
from tightrope.inputs.prepare.pixels import SquarePixels

ROOT = Path(__file__).parents[3]
CLIP: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 24},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 24, "width": 24},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def image(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    rng = np.random.default_rng(seed)
    return PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def hugging_face(config: dict[str, Any], images: list[PIL.Image.Image]) -> npt.NDArray[Any]:
    kind = "llava" if config.get("do_pad") else "clip"
    module = pytest.importorskip(
        f"transformers.models.{kind}.image_processing_pil_{kind}",
        reason="the oracle is Hugging Face's own code",
    )
    processors = {"llava": "LlavaImageProcessorPil", "clip": "CLIPImageProcessorPil"}
    theirs = {key: value for key, value in config.items() if key != "background"}
    processor = getattr(module, processors[kind])(**theirs)
    pixel_values: npt.NDArray[Any] = processor(images, return_tensors="np")["pixel_values"]
    return pixel_values


@given(width=st.integers(1, 90), height=st.integers(1, 90), edge=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_dimension_equals_hugging_face_to_the_bit(width: int, height: int, edge: int) -> None:
    config = {
        **CLIP, "size": {"shortest_edge": edge}, "crop_size": {"height": edge, "width": edge}
    }  # fmt: skip
    ours = SquarePixels(CLIP)([image(width, height)], edge)
    np.testing.assert_array_equal(ours, hugging_face(config, [image(width, height)]))
    assert ours.dtype == np.float32


@given(width=st.integers(1, 60), height=st.integers(1, 60), edge=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_cropping_and_padding_alone_equal_hugging_face(width: int, height: int, edge: int) -> None:
    config = {**CLIP, "do_resize": False, "crop_size": {"height": edge, "width": edge}}
    ours = SquarePixels(config)([image(width, height)], edge)
    np.testing.assert_array_equal(ours, hugging_face(config, [image(width, height)]))


PADDED = {"do_pad": True, "background": [int(level * 255) for level in CLIP["image_mean"]]}
edges = st.integers(1, 60)
two_edges = st.tuples(edges, edges)


@given(width=st.integers(1, 90), height=st.integers(1, 90), short=edges, crop=edges)
@settings(max_examples=60, deadline=None)
def test_a_crop_that_is_smaller_or_larger_than_what_it_is_cut_from(
    width: int, height: int, short: int, crop: int
) -> None:
    config = {
        **CLIP,
        "size": {"shortest_edge": short},
        "crop_size": {"height": crop, "width": crop},
    }
    ours = SquarePixels(config)
    assert ours.own_side == crop
    np.testing.assert_array_equal(
        ours([image(width, height)], crop), hugging_face(config, [image(width, height)])
    )


@given(width=st.integers(1, 90), height=st.integers(1, 90), edge=edges, crop=st.booleans())
@settings(max_examples=60, deadline=None)
def test_padding_to_a_square_equals_hugging_face(
    width: int, height: int, edge: int, crop: bool
) -> None:
    config = {
        **CLIP,
        **PADDED,
        "size": {"shortest_edge": edge},
        "do_center_crop": crop,
        "crop_size": {"height": edge, "width": edge},
    }
    ours = SquarePixels(config)([image(width, height)], edge)
    np.testing.assert_array_equal(ours, hugging_face(config, [image(width, height)]))


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    size=st.one_of(
        st.tuples(edges, edges).map(
            lambda e: {"shortest_edge": min(e), "longest_edge": max(e) + 1}
        ),
        st.tuples(edges, edges).map(lambda e: {"height": e[0], "width": e[1]}),
        st.tuples(edges, edges).map(lambda e: {"max_height": e[0], "max_width": e[1]}),
    ),
    crop=edges,
)
@settings(max_examples=120, deadline=None)
def test_every_form_of_size_equals_hugging_face(
    width: int, height: int, size: dict[str, int], crop: int
) -> None:
    config = {**CLIP, "size": size, "crop_size": {"height": crop, "width": crop}}
    try:
        expected = hugging_face(config, [image(width, height)])
    except ValueError:  # an edge of no pixels
        return
    ours = SquarePixels(config)([image(width, height)], crop)
    np.testing.assert_array_equal(ours, expected)


def test_another_resolution_scales_size_and_crop_alike() -> None:
    config = {**CLIP, "size": {"shortest_edge": 32}, "crop_size": {"height": 24, "width": 24}}
    ours = SquarePixels(config)([image(70, 50)], 48)
    doubled = {**CLIP, "size": {"shortest_edge": 64}, "crop_size": {"height": 48, "width": 48}}
    np.testing.assert_array_equal(ours, hugging_face(doubled, [image(70, 50)]))


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_rescale": False, "do_normalize": False},
        {"size": {"height": 24, "width": 24}},
        {"size": {"height": 24, "width": 24}, "do_center_crop": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
        {"do_convert_rgb": True},
    ],
)
def test_every_option_and_filter_equals_hugging_face(resample: int, change: dict[str, Any]) -> None:
    config = {**CLIP, "resample": resample, **change}
    images = [image(31, 50), image(100, 17, seed=1), image(24, 24, seed=2)]
    ours = SquarePixels(config)(images, 24)
    expected = hugging_face(config, images)
    np.testing.assert_array_equal(ours, expected.astype(np.float32))
    assert ours.shape == (3, 3, 24, 24)


def test_the_reference_model_preprocesses_as_hugging_face_does() -> None:
    file = ROOT / "models" / "reference" / "processor_config.json"
    stored = json.loads(file.read_text(encoding="utf-8"))["image_processor"]
    config = {key: stored[key] for key in CLIP}
    picture = ROOT / "tests" / "data" / "scenes" / "images" / "00001.png"
    scene = PIL.Image.open(picture).convert("RGB")
    images = [scene, image(640, 480)]
    ours = SquarePixels(config)(images, 336)
    np.testing.assert_array_equal(ours, hugging_face(config, images))


@pytest.mark.parametrize("size", [{"shortest_edge": 24}, {"height": 24, "width": 24}])
def test_the_resolution_replaces_size_and_crop(size: dict[str, int]) -> None:
    ours = SquarePixels({**CLIP, "size": size})([image(33, 44)], 40)
    edges = {key: 40 for key in size}
    config = {**CLIP, "size": edges, "crop_size": {"height": 40, "width": 40}}
    np.testing.assert_array_equal(ours, hugging_face(config, [image(33, 44)]))


def test_no_images_give_an_empty_batch() -> None:
    assert SquarePixels(CLIP)([], 24).shape == (0, 3, 24, 24)


def test_an_image_too_thin_to_scale_is_refused() -> None:
    with pytest.raises(InputError, match="1 x 4000 pixels; one side may be at most 200 times"):
        SquarePixels(CLIP)([image(1, 4000)], 336)


@pytest.mark.parametrize(
    ("change", "given"),
    [
        ({"size": {"shortest_edge": 1 << 14}}, (40, 30)),
        ({"size": {"shortest_edge": 1 << 14}}, (30, 6000)),
        ({"do_pad": True, "background": [0, 0, 0]}, (20_000, 100)),
    ],
)
def test_what_would_take_gigabytes_on_its_way_is_refused(
    change: dict[str, Any], given: tuple[int, int]
) -> None:
    with pytest.raises(InputError, match=f"{given[0]} x {given[1]} pixels would take .*144 mega"):
        SquarePixels({**CLIP, **change})([PIL.Image.new("RGB", given)], 24)


@pytest.mark.parametrize(
    ("size", "given"),
    [({"max_height": 24, "max_width": 24}, (1, 90)), ({"max_height": 9, "max_width": 9}, (80, 2))],
)
def test_an_image_of_which_nothing_is_left_is_refused(
    size: dict[str, int], given: tuple[int, int]
) -> None:
    with pytest.raises(InputError, match=f"{given[0]} x {given[1]} pixels; nothing would be left"):
        SquarePixels({**CLIP, "size": size})([image(*given)], 24)


@pytest.mark.parametrize("number", [10**400, -(10**39), float("nan"), float("inf"), True])
@pytest.mark.parametrize("key", ["rescale_factor", "image_mean", "image_std"])
def test_numbers_that_no_pixel_takes_are_refused(key: str, number: Any) -> None:
    value = number if key == "rescale_factor" else [0.5, number, 0.5]
    with pytest.raises(BundleError, match=key) as caught:
        SquarePixels({**CLIP, key: value})
    assert len(str(caught.value)) < 250


def test_keys_that_are_not_known_are_shown_by_their_beginnings() -> None:
    with pytest.raises(BundleError, match="does not know") as caught:
        SquarePixels({**CLIP, **{f"{number}{'x' * 5000}": 1 for number in range(99)}})
    assert len(str(caught.value)) < 600


def test_an_image_that_nothing_scales_must_fit() -> None:
    config = {**CLIP, "do_resize": False, "do_center_crop": False}
    preprocessor = SquarePixels(config)
    assert preprocessor([image(24, 24)], 24).shape == (1, 3, 24, 24)
    with pytest.raises(InputError, match=r"25 x 24 pixels .* pass 24 x 24"):
        preprocessor([image(25, 24)], 24)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"do_pad": True}, "do_pad but no background"),
        ({"do_pad": 1}, "do_pad 1"),
        ({"do_pad": True, "background": [0, 0, 256]}, "background .* three numbers"),
        ({"do_pad": True, "background": "black"}, "background 'black'"),
        ({"do_thumbnail": True}, "do_thumbnail, which this version does not know"),
        ({"size": {"shortest_edge": 10**9}}, "shortest_edge': 1000000000"),
        ({"crop_size": {"height": 24, "width": 20}}, "equal height and width"),
        ({"crop_size": [24, 24]}, "crop_size"),
        ({"rescale_factor": float("nan")}, "a number"),
        ({"rescale_factor": True}, "a number"),
        ({"image_mean": "abc"}, "three numbers"),
        ({"image_mean": [0.5, 0.5, "a"]}, "three numbers"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std .* three numbers"),
        ({"resample": "3"}, "resample '3'"),
        ({"resample": True}, "resample True"),
        ({"do_resize": None}, "do_resize None"),
        ({"do_rescale": "yes"}, "do_rescale 'yes'"),
        ({"size": {"longest_edge": 30}}, "longest_edge"),
        ({"size": 24}, "size 24"),
        ({"size": {"shortest_edge": 0}}, "shortest_edge"),
        ({"resample": 9}, "resample 9"),
        ({"resample": None}, "do_resize but no resample"),
        ({"crop_size": None}, "no crop_size"),
        ({"crop_size": {"height": 24}}, "height and width"),
        ({"rescale_factor": "1/255"}, "a number"),
        ({"image_mean": [0.5]}, "three numbers"),
        ({"image_std": None}, "no image_std"),
        ({"do_center_crop": False}, "without a crop"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused_by_key(
    change: dict[str, Any], named: str
) -> None:
    with pytest.raises(BundleError, match=named):
        SquarePixels({**CLIP, **change})
