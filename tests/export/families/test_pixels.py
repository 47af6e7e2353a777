"""Image processors as they were stored over the years: the same pixels, or a refusal by key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

transformers = pytest.importorskip("transformers", reason="the oracle is transformers' own code")

from tightrope.errors import InputError, UnsupportedModel  # noqa: E402
from tightrope.export.families.pixels import square_pixels  # noqa: E402
from tightrope.inputs.prepare.pixels import SquarePixels  # noqa: E402

Store = Callable[[dict[str, Any]], Path]
SIDE = 28
SQUARE = {"height": SIDE, "width": SIDE}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Writes an image processor where transformers finds it."""

    def write(stored: dict[str, Any]) -> Path:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(stored))
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
        return tmp_path

    return write


def image(width: int, height: int) -> PIL.Image.Image:
    rng = np.random.default_rng([width, height])
    return PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


STORED: dict[str, dict[str, Any]] = {
    "2022, defaults left out": {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "crop_size": SIDE,
        "size": SIDE,
        "resample": 3,
        "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
    },
    "the class and two sizes": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": SQUARE,
    },
    "a larger size than the crop": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": SQUARE,
    },
    "a smaller size than the crop": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 20},
        "crop_size": SQUARE,
    },
    "no crop": {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": False,
        "size": SQUARE,
    },
    "LLaVA, padded to a square": {
        "image_processor_type": "LlavaImageProcessor",
        "do_pad": True,
        "size": {"shortest_edge": SIDE},
        "crop_size": SQUARE,
    },
    "LLaVA, padded without a crop": {
        "image_processor_type": "LlavaImageProcessor",
        "do_pad": True,
        "pad_size": 40,
        "do_center_crop": False,
        "size": {"shortest_edge": SIDE},
        "image_mean": [0.1, 0.5, 0.9],
    },
    "LLaVA, not padded": {
        "image_processor_type": "LlavaImageProcessorFast",
        "size": {"shortest_edge": SIDE},
        "crop_size": SQUARE,
    },
    "padded to the largest of a batch, in which all are alike": {
        "image_processor_type": "CLIPImageProcessor",
        "do_pad": True,
        "size": {"shortest_edge": 32},
        "crop_size": SQUARE,
    },
    "padded to the size that it has": {
        "image_processor_type": "BlipImageProcessor",
        "do_pad": True,
        "pad_size": SIDE,
        "size": SQUARE,
    },
    "SigLIP": {"image_processor_type": "SiglipImageProcessor", "size": SQUARE},
    "another rescaling": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": SQUARE,
        "rescale_factor": 1 / 127.5,
        "image_mean": [1, 1, 1],
        "image_std": [1, 1, 1],
        "resample": 2,
    },
    "nothing normalised": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": SQUARE,
        "do_normalize": False,
        "do_convert_rgb": True,
        "default_to_square": False,
        "_valid_processor_keys": ["images", "do_resize"],
        "processor_class": "LlavaProcessor",
    },
}


@pytest.mark.parametrize("name", STORED)
@given(width=st.integers(1, 80), height=st.integers(1, 80))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_pixels_are_those_of_transformers(store: Store, name: str, width: int, height: int) -> None:
    folder = store(STORED[name])
    config, _ = square_pixels(folder, STORED[name], SIDE)
    json.dumps(config)  # as preprocessor.json it says all of it
    theirs = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    expected = theirs([image(width, height)], return_tensors="np")["pixel_values"]
    ours = SquarePixels(config)([image(width, height)], SIDE)
    np.testing.assert_array_equal(ours, expected.astype(np.float32))


SIZES: list[Any] = [
    SIDE, SQUARE, {"shortest_edge": SIDE}, {"shortest_edge": 32}, {"shortest_edge": 12},
    {"height": 32, "width": 40}, {"shortest_edge": SIDE, "longest_edge": 40},
    {"max_height": 40, "max_width": 30}, {"longest_edge": 40},
]  # fmt: skip
STEPS = ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb")
NUMBERS: list[Any] = [[0.48, 0.45, 0.4], [1, 1, 1], [0.1, 0.2, 0.3], 0.5, 2, [1.2, 0.1, 0.5]]
KEYS: dict[str, list[Any]] = {
    "image_processor_type": [
        f"{name}ImageProcessor{end}"
        for name in (
            "CLIP",
            "Llava",
            "Llava",
            "Siglip",
            "ViT",
            "Bit",
            "ChineseCLIP",
            "Blip",
            "DeiT",
        )
        for end in ("", "Fast")
    ],
    "crop_size": [
        SIDE,
        SIDE,
        SQUARE,
        SQUARE,
        {"height": SIDE, "width": 20},
        {"shortest_edge": SIDE},
    ],
    **{step: [True, True, False, 1, 0] for step in STEPS},
    "do_pad": [False, False, False, True],
    "do_center_crop": [True, True, True, False],
    "resample": [0, 1, 2, 3, 4, 5],
    "rescale_factor": [1 / 255, 1 / 127.5, 1, 0.5],
    "image_mean": [*NUMBERS, [0, 0, 0]],
    "image_std": [*NUMBERS],
    "default_to_square": [True, False],
    "pad_size": [SQUARE],
    "data_format": ["channels_first", "channels_last"],
}


@given(
    st.fixed_dictionaries(
        {"size": st.sampled_from(SIZES)},
        optional={key: st.sampled_from(values) for key, values in KEYS.items()},
    ),
    st.integers(1, 90),
    st.integers(1, 90),
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_stored_is_followed_to_the_bit_or_refused(
    store: Store, stored: dict[str, Any], width: int, height: int
) -> None:
    folder = store(stored)
    try:
        config, _ = square_pixels(folder, stored, SIDE)
        ours = SquarePixels(json.loads(json.dumps(config)))([image(width, height)], SIDE)
    except (UnsupportedModel, InputError):
        event("refused")
        return
    event("followed")
    theirs = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    try:
        expected = theirs([image(width, height)], return_tensors="np")["pixel_values"]
    except TypeError:  # a background of a single mean
        assert config["do_pad"] and isinstance(stored["image_mean"], (int, float))
        return
    np.testing.assert_array_equal(ours, expected.astype(np.float32))


@pytest.mark.parametrize("name", STORED)
def test_everything_is_stated_and_what_is_left_has_a_reason(store: Store, name: str) -> None:
    config, left = square_pixels(store(STORED[name]), STORED[name], SIDE)
    for step in ("do_pad", "do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        assert type(config[step]) is bool
    assert all(entry.reason for entry in left)
    assert {entry.name for entry in left} <= {
        "do_convert_rgb", "default_to_square", "_valid_processor_keys"
    }  # fmt: skip


CLIP = STORED["the class and two sizes"]


@pytest.mark.parametrize("stored", [{}, None])
def test_a_folder_without_an_image_processor_is_told(tmp_path: Path, stored: Any) -> None:
    with pytest.raises(UnsupportedModel, match=r"neither preprocessor_config\.json nor"):
        square_pixels(tmp_path, stored, SIDE)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"do_thumbnail": True}, "may change the model: do_thumbnail"),
        ({"do_align_long_axis": True, "zap": 1}, "do_align_long_axis, zap"),
        ({"image_grid_pinpoints": [[336, 672]]}, "image_grid_pinpoints"),
        ({"crop_size": {"height": 56, "width": 56}}, "makes pictures of 56 x 56 .* takes 28 x 28"),
        ({"crop_size": {"height": 28, "width": 20}}, "equal height and width"),
        ({"do_center_crop": False}, "without a crop"),
        ({"do_pad": True, "pad_size": 40}, "do_pad and pad_size .*40"),
        ({"image_processor_type": "LlavaNextImageProcessor"}, "LlavaNextImageProcessor"),
        ({"image_processor_type": "NoSuchProcessor"}, "no image processor that can be read"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std"),
        ({"resample": 17}, "resample|can be read"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    store: Store, change: dict[str, Any], named: str
) -> None:
    stored = {**CLIP, **change}
    with pytest.raises(UnsupportedModel, match=named):
        square_pixels(store(stored), stored, SIDE)
