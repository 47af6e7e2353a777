"""The numpy half of the CLIP tower: what the host knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tightrope.errors import BundleError
from tightrope.inputs.layout import Visual
from tightrope.inputs.prepare import VisionInfo, create_tower

INFO = VisionInfo(
    kind="clip",
    image_token_id=4,
    image_token="<image>",
    resolutions=(56, 84, 28),
    signals=("tower_keys", "tower_states"),
    sizes={"patch_size": 14, "hidden_size": 8, "head_dim": 4},
)
PIXELS: dict[str, Any] = {
    "do_resize": True,
    "size": {"height": 56, "width": 56},
    "resample": 3,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": False,
}


def tables() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sides = {side: 1 + (side // 14) ** 2 for side in INFO.resolutions}
    return {
        str(side): rng.normal(size=(1, count, 8)).astype(np.float32)
        for side, count in sides.items()
    }


def test_an_image_is_a_run_of_all_its_patches() -> None:
    tower = create_tower(INFO)
    assert [tower.layout((640, 480), side) for side in INFO.resolutions] == [
        (Visual(16),),
        (Visual(36),),
        (Visual(4),),
    ]


def test_rows_ranges_and_examples_agree() -> None:
    tower = create_tower(INFO)
    rows = (*tower.input_rows(), *tower.output_rows(32))
    assert [row.name for row in rows[-3:]] == ["visual_embeds", "tower_keys", "tower_states"]
    ranges, lengths = tower.ranges(), tower.example_lengths()
    assert ranges["H"] == ranges["W"] == (28, 56, 84)
    assert ranges["V"] == (4, 16, 36) and ranges["P"] == (5, 17, 37)
    assert lengths["P"] == 1 + (lengths["H"] // 14) * (lengths["W"] // 14)


def test_pictures_become_pixels_and_the_positions_of_their_resolution() -> None:
    ready = create_tower(INFO).prepare(PIXELS, found := tables())
    picture = PIL.Image.new("RGB", (10, 20), (255, 0, 51))
    inputs = ready([picture], 28)
    assert set(inputs) == {row.name for row in create_tower(INFO).input_rows()}
    np.testing.assert_allclose(inputs["pixel_values"][0, :, 3, 3], [1, 0, 0.2], atol=1e-6)
    assert inputs["pixel_values"].shape == (1, 3, 28, 28)
    np.testing.assert_array_equal(inputs["position_table"], found["28"])


NO_TABLES: dict[str, Callable[[Any], Any]] = {
    "short": lambda table: table[:, 1:],
    "flat": lambda table: table.reshape(-1),
    "a number": lambda table: np.float32(1)[()],
    "float64": lambda table: table.astype(np.float64),
    "float16": lambda table: table.astype(np.float16),
    "big-endian": lambda table: table.astype(">f4"),
    "complex": lambda table: table.astype(np.complex64),
    "text": lambda table: np.full(table.shape, "a"),
    "dates": lambda table: np.zeros(table.shape, "M8[s]"),
    "records": lambda table: np.zeros(table.shape, [("a", "f4")]),
    "not finite": lambda table: np.where(table == table.max(), np.float32("nan"), table),
}


@pytest.mark.parametrize("change", NO_TABLES)
def test_position_tables_that_do_not_fit_are_named(change: str) -> None:
    found = tables()
    found["84"] = NO_TABLES[change](found["84"])
    with pytest.raises(BundleError, match=r"positions\.npz is damaged: resolution 84"):
        create_tower(INFO).prepare(PIXELS, found)


def test_a_position_table_that_is_missing_is_named() -> None:
    found = tables() | {"zap": np.zeros(3)}  # what nobody asks for is no matter
    create_tower(INFO).prepare(PIXELS, found)
    del found["84"]
    with pytest.raises(BundleError, match=r"positions\.npz is damaged: resolution 84 is missing"):
        create_tower(INFO).prepare(PIXELS, found)


def test_a_table_stored_by_columns_is_the_same() -> None:
    found = tables()
    by_columns = {side: np.asfortranarray(table) for side, table in found.items()}
    picture = PIL.Image.new("RGB", (84, 84))
    table = create_tower(INFO).prepare(PIXELS, by_columns)([picture], 84)["position_table"]
    np.testing.assert_array_equal(table, found["84"])
    assert table.flags.c_contiguous


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "cloud"}, "of kind 'cloud', this version knows: clip, siglip"),
        ({"sizes": {"patch_size": 14}}, "has the sizes"),
        ({"sizes": {"patch_size": 0, "hidden_size": 8, "head_dim": 4}}, "has the sizes"),
        ({"resolutions": ()}, "resolutions are"),
        ({"resolutions": (56, 57)}, "patches 14"),
    ],
)
def test_sizes_that_no_export_writes_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        create_tower(replace(INFO, **change))


def test_a_tower_without_cls_has_as_many_positions_as_patches() -> None:
    tower = create_tower(replace(INFO, kind="siglip"))
    ranges, lengths = tower.ranges(), tower.example_lengths()
    assert ranges["P"] == ranges["V"] == (4, 16, 36)
    assert lengths["P"] == (lengths["H"] // 14) ** 2
    found = {side: table[:, 1:] for side, table in tables().items()}
    tower.prepare(PIXELS, found)
    with pytest.raises(BundleError, match="resolution 56 is float32"):
        tower.prepare(PIXELS, tables())
