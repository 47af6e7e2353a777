"""Grids in numpy against what Hugging Face's towers and processors compute of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tightrope.inputs.prepare.grids import fitted, interpolation, patch_places, windows

torch = pytest.importorskip("torch", reason="the oracle is Hugging Face's own code")
vision_utils = pytest.importorskip("transformers.vision_utils")
processing = pytest.importorskip(
    "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl",
    reason="the oracle is Hugging Face's own code",
)

sides = st.integers(1, 12)


def grid(columns: int, rows: int, merge: int) -> Any:
    return torch.tensor([[1, rows * merge, columns * merge]])


@settings(max_examples=300, deadline=None)
@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    cell=st.sampled_from([28, 32, 12]),
    least=st.integers(1, 300),
    more=st.integers(0, 3000),
)
def test_sizes_equal_smart_resize(
    width: int, height: int, cell: int, least: int, more: int
) -> None:
    assume(max(width, height) <= 200 * min(width, height))
    bounds = least * cell * cell, (least + more) * cell * cell
    high, wide = processing.smart_resize(height, width, cell, *bounds)
    assert fitted(width, height, cell, *bounds) == (wide // cell, high // cell)


@settings(max_examples=60, deadline=None)
@given(columns=sides, rows=sides, merge=st.integers(1, 3))
def test_patches_stand_cell_by_cell(columns: int, rows: int, merge: int) -> None:
    ours = patch_places(columns, rows, merge)
    theirs = vision_utils.get_vision_position_ids(grid(columns, rows, merge), merge)
    np.testing.assert_array_equal(ours.reshape(-1, 2), theirs.numpy())


@settings(max_examples=80, deadline=None)
@given(columns=sides, rows=sides, side=st.integers(1, 5))
def test_windows_are_hugging_faces(columns: int, rows: int, side: int) -> None:
    order, lengths = windows(columns, rows, side)
    index, bounds = vision_utils.get_vision_window_index(
        grid(columns, rows, 2), spatial_merge_size=2, window_size=side * 2 * 14, patch_size=14
    )
    np.testing.assert_array_equal(order, index.numpy())
    np.testing.assert_array_equal(np.cumsum([0, *lengths]) * 4, bounds.numpy())
    assert lengths.max() <= side * side


@settings(max_examples=60, deadline=None)
@given(columns=sides, rows=sides, merge=st.integers(1, 2), side=st.integers(1, 9))
def test_learned_positions_are_read_where_hugging_face_reads_them(
    columns: int, rows: int, merge: int, side: int
) -> None:
    index, share = interpolation(columns, rows, merge, side)
    places, weights = vision_utils.get_vision_interpolation_indices_and_weights(
        grid(columns, rows, merge), side, align_corners=True, spatial_merge_size=merge
    )
    np.testing.assert_array_equal(index.reshape(-1, 4), places.numpy())
    np.testing.assert_array_equal(share.reshape(-1, 4), weights.numpy())
    np.testing.assert_allclose(share.sum(-1), 1, atol=1e-6)
