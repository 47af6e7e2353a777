"""How images become tiles and layouts: against transformers' PIL processors, pixel for pixel."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

transformers = pytest.importorskip("transformers", reason="the oracle is transformers' own code")

from tightrope.errors import BundleError, InputError  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.config import ExportConfig  # noqa: E402
from tightrope.export.recipe import Recipe, plan  # noqa: E402
from tightrope.inputs.layout import Text, Visual, visual_tokens  # noqa: E402
from tightrope.inputs.prepare import VisionInfo, create_tower  # noqa: E402

Find = Callable[[str], Path]
FAMILIES = ("llava-next", "llava-onevision", "smolvlm", "idefics3", "internvl")
SIZES = [
    *((28, 28), (56, 28), (100, 60), (60, 100), (200, 30), (17, 300), (1, 1), (84, 84), (73, 71)),
    *((190, 1), (1, 190), (85, 84), (29, 57)),
]
sizes = st.tuples(st.integers(1, 130), st.integers(1, 130))


@pytest.fixture(scope="module")
def recipe(checkpoint: Find) -> Callable[[str], Recipe]:
    """`recipe("smolvlm")`: what is fixed in a bundle of it, without any tracing."""
    made: dict[str, Recipe] = {}

    def find(name: str) -> Recipe:
        if name not in made:
            made[name] = plan(open_checkpoint(checkpoint(name)), ExportConfig())
        return made[name]

    return find


def picture(size: tuple[int, int]) -> PIL.Image.Image:
    rng = np.random.default_rng(size)
    return PIL.Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))


def theirs(folder: Path, image: PIL.Image.Image, **limits: Any) -> Any:
    """What Hugging Face's processor makes of an image: pixels [tiles,3,R,R] and whatever else."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    name = type(processor).__name__
    if name.startswith("GotOcr2"):
        limits |= {"crop_to_patches": True}
    if name.startswith(("SmolVLM", "Idefics3")):
        limits |= {"return_row_col_info": True}
    return processor(images=[image], return_tensors="np", **limits)


def ours(made: Recipe, image: PIL.Image.Image, resolution: int | None = None) -> Any:
    assert made.vision is not None
    info = made.vision.info
    shape = (1, info.sizes["positions"], info.sizes["hidden_size"])
    tables = {"tile": np.zeros(shape, np.float32)}
    ready = made.vision.host.prepare(made.preprocessor, tables)
    return ready([image], resolution or info.resolutions[0])["pixel_values"]


def pixels_of(batch: Any) -> Any:
    found = np.asarray(batch["pixel_values"])
    return found.reshape(-1, *found.shape[-3:])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_pixels_are_those_of_the_processor(
    name: str, size: tuple[int, int], recipe: Callable[[str], Recipe], checkpoint: Find
) -> None:
    image = picture(size)
    expected = pixels_of(theirs(checkpoint(name), image))
    np.testing.assert_array_equal(ours(recipe(name), image), expected)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(FAMILIES), size=sizes)
def test_tiles_and_tokens_of_any_size_agree(
    name: str,
    size: tuple[int, int],
    recipe: Callable[[str], Recipe],
    checkpoint: Find,
) -> None:
    made, image = recipe(name), picture(size)
    vision = made.vision
    assert vision is not None
    tower, resolution = vision.host, vision.info.resolutions[0]
    found = ours(made, image)
    np.testing.assert_array_equal(found, pixels_of(theirs(checkpoint(name), image)))
    ranges = tower.ranges()
    assert ranges["I"].least <= len(found) <= ranges["I"].most
    layout = tower.layout(size, resolution)
    count = visual_tokens(layout)
    assert 1 <= count <= tower.most_tokens(resolution) <= tower.token_ranges()["V"].most
    seen = np.arange(len(found) * ranges["V"].most, dtype=np.float32)
    outputs = {"visual_embeds": seen.reshape(len(found), -1, 1)}
    tokens = tower.tokens(outputs, size, resolution)["visual_embeds"]
    assert tokens.shape == (1, count, 1)
    if name != "llava-onevision":  # which mixes tokens above four tiles
        places = tokens.reshape(-1).astype(int)
        assert len(set(places.tolist())) == count


LIMITS: dict[str, list[tuple[int, dict[str, Any]]]] = {
    "llava-next": [(56, {"image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]})],
    "llava-onevision": [(28, {"image_grid_pinpoints": [[28, 28]]})],
    "smolvlm": [(56, {"size": {"longest_edge": 56}}), (28, {"size": {"longest_edge": 28}})],
    "internvl": [(28, {"max_patches": 1}), (40, {"max_patches": 2}), (49, {"max_patches": 3})],
}


@pytest.mark.parametrize(
    ("name", "resolution", "limits"),
    [(name, side, limits) for name, rows in LIMITS.items() for side, limits in rows],
)
def test_a_lower_resolution_is_the_processor_with_fewer_tiles(
    name: str,
    resolution: int,
    limits: dict[str, Any],
    recipe: Callable[[str], Recipe],
    checkpoint: Find,
) -> None:
    for size in ((100, 60), (30, 90), (28, 28)):
        expected = pixels_of(theirs(checkpoint(name), picture(size), **limits))
        found = ours(recipe(name), picture(size), resolution)
        np.testing.assert_array_equal(found, expected)
        host = recipe(name).vision
        assert host is not None
        assert visual_tokens(host.host.layout(size, resolution)) <= host.host.most_tokens(
            resolution
        )


def test_below_all_grids_the_whole_is_all(recipe: Callable[[str], Recipe]) -> None:
    vision = recipe("llava-next").vision
    assert vision is not None
    assert ours(recipe("llava-next"), picture((90, 40)), 28).shape == (1, 3, 28, 28)
    layout = vision.host.layout((90, 40), 28)
    assert visual_tokens(layout) == 16 and layout[1:] == (Text(vision.info.ids["newline"]),)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(2010, 10), (10, 2010)])
def test_what_is_too_long_and_thin_is_refused(
    name: str, size: tuple[int, int], recipe: Callable[[str], Recipe]
) -> None:
    vision = recipe(name).vision
    assert vision is not None
    with pytest.raises(InputError, match=f"{size[0]} x {size[1]} pixels.*cut it into pieces"):
        vision.host.layout(size, vision.info.resolutions[0])


def test_of_what_is_nothing_in_any_grid_the_whole_is_left(recipe: Callable[[str], Recipe]) -> None:
    vision = recipe("llava-next").vision
    assert vision is not None
    assert vision.host.layout((190, 1), 84) == (Visual(16),)


def info_of(recipe: Callable[[str], Recipe], name: str) -> VisionInfo:
    vision = recipe(name).vision
    assert vision is not None
    return vision.info


WRONG: dict[str, tuple[str, Callable[[VisionInfo], VisionInfo], str]] = {
    "a size less": (
        "internvl",
        lambda info: replace(info, sizes={"tile_size": 28}),
        "of kind internvl has the sizes",
    ),
    "a size of another kind": (
        "smolvlm",
        lambda info: replace(info, sizes={**info.sizes, "most_tiles": 3}),
        "of kind idefics has the sizes",
    ),
    "no tokens": (
        "internvl",
        lambda info: replace(info, sizes={**info.sizes, "tokens_per_side": 0}),
        "sizes are",
    ),
    "less than a tile": (
        "internvl",
        lambda info: replace(info, resolutions=(69, 27)),
        r"resolutions are \(69, 27\)",
    ),
    "no resolution": ("smolvlm", lambda info: replace(info, resolutions=()), "resolutions are"),
    "tiles without number": (
        "internvl",
        lambda info: replace(info, resolutions=(10**6,)),
        "resolutions are",
    ),
    "half a grid": (
        "llava-next",
        lambda info: replace(info, lists={"grids": (28, 56, 28)}),
        "grids are",
    ),
    "grids of no tiles": (
        "llava-next",
        lambda info: replace(info, lists={"grids": (28, 57)}),
        "grids are",
    ),
    "no newline": ("llava-next", lambda info: replace(info, ids={}), "one newline is wanted"),
    "no marks": ("internvl", lambda info: replace(info, ids={}), "start and end are wanted"),
    "a place without a mark": (
        "smolvlm",
        lambda info: replace(info, ids={k: v for k, v in info.ids.items() if k != "row_4_col_4"}),
        "ids",
    ),
    "more tiles than there may be": (
        "internvl",
        lambda info: replace(info, sizes={**info.sizes, "least_tiles": 7}),
        "least_tiles is 7",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_no_export_writes_is_refused(what: str, recipe: Callable[[str], Recipe]) -> None:
    name, edit, said = WRONG[what]
    with pytest.raises(ValueError, match=said):
        create_tower(edit(info_of(recipe, name)))


@pytest.mark.parametrize("change", [{"resample": 9}, {"resample": None}, {"do_resize": True}])
def test_a_damaged_preprocessor_is_told(
    change: dict[str, Any], recipe: Callable[[str], Recipe]
) -> None:
    made = recipe("internvl")
    assert made.vision is not None
    sizes = made.vision.info.sizes
    tables = {"tile": np.zeros((1, sizes["positions"], sizes["hidden_size"]), np.float32)}
    with pytest.raises(BundleError, match=r"preprocessor\.json has resample"):
        made.vision.host.prepare(made.preprocessor | change, tables)
    with pytest.raises(BundleError, match=r"positions\.npz is damaged: the table of tiles"):
        made.vision.host.prepare(made.preprocessor, {})


def test_what_is_written_is_json(recipe: Callable[[str], Recipe]) -> None:
    for name in FAMILIES:
        written = json.loads(json.dumps(recipe(name).preprocessor))
        assert written == recipe(name).preprocessor
