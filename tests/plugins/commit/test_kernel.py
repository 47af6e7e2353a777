"""The commit kernel in Triton's interpreter, and its reference beside what the host's slots do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tightrope.interface.calls import Update
from tightrope.interface.tensors import INT8_SLOTS, Dims
from tightrope.plugins.commit.reference import commit, commit_int8, from_int8, to_int8
from tightrope.runtime.storage import NumpyStorage

HERE = Path(__file__).parent


DIMS = Dims(
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=3,
    hidden_size=6,
    vocab_size=9,
)
halves = st.floats(width=16, allow_nan=False, allow_infinity=False)
SMALLEST = np.finfo(np.float16).smallest_subnormal
LARGEST = np.finfo(np.float16).max


def test_the_kernels_leave_in_the_slots_what_the_references_do(
    interpreted: Callable[..., Any],
) -> None:
    assert interpreted(HERE / "interpreted.py") == [True] * 12


@given(arrays(np.float16, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=halves))
def test_int8_keeps_a_row_to_half_a_step_of_its_largest_number(rows: npt.NDArray[Any]) -> None:
    codes, scale = to_int8(rows)
    assert codes.dtype == np.int8 and scale.dtype == np.float32 and scale.shape == (len(rows), 1)
    assert codes.min() >= -127 and np.isfinite(scale).all()
    largest = np.abs(rows.astype(np.float32)).max(1)
    np.testing.assert_array_equal(np.abs(codes.astype(np.int32)).max(1), (largest > 0) * 127)
    apart = np.abs(from_int8(codes, scale) - rows)
    assert (apart <= scale * (0.5 + 1e-5)).all()


@given(st.integers(-127, 126), st.sampled_from([SMALLEST, np.float16(0.25), LARGEST]))
def test_the_largest_number_is_kept_whole_and_halves_go_to_even(code: int, size: Any) -> None:
    rows = np.array([[127, code + 0.5, 0]], np.float32) * np.float32(size)
    codes, scale = to_int8(rows)
    assert codes[0, 0] == 127 and codes[0, 2] == 0
    np.testing.assert_allclose(scale, [[size]], rtol=1e-6)
    if size == np.float16(0.25):  # no rounding on the way
        assert codes[0, 1] == round(code + 0.5)


def test_a_row_of_zeros_has_the_scale_zero_and_what_is_no_number_stays_none() -> None:
    codes, scale = to_int8(np.array([[0, 0], [1, np.inf], [np.nan, 1]], np.float16))
    assert not codes[0].any() and not scale[0].any()
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(from_int8(codes, scale)[1:]).all(1).any()
    assert to_int8(np.zeros((2, 0, 4), np.float16))[1].shape == (2, 0, 1)


def test_a_host_keeps_what_int8_does() -> None:
    rng, capacity = np.random.default_rng(1), np.array([5, 7])
    storage = NumpyStorage(DIMS, 2, capacity, kv_cache=INT8_SLOTS)
    key, value = rng.normal(size=(2, 2, 2, 2, 4, 3)).astype(np.float32)
    target = np.tile(np.array([3, -1, 0, 2], np.int32), (2, 2, 2, 1))
    views = storage.views(0)
    storage.write(Update(key, value, target, views.score, views.position), 0)
    for layer, held in enumerate((*views.keys, *views.values)):
        slots = np.zeros(held.shape, np.int8), np.zeros((*held.shape[:3], 1), np.float32)
        commit_int8(slots, (key, value)[layer // 2][layer % 2], target[layer % 2])
        np.testing.assert_array_equal(held, from_int8(*slots))
        assert np.abs(held).max() > 0


def test_the_reference_does_what_a_host_does() -> None:
    rng, capacity = np.random.default_rng(0), np.array([5, 7])
    storage = NumpyStorage(DIMS, 2, capacity)
    key, value = rng.normal(size=(2, 2, 2, 2, 4, 3)).astype(np.float32)
    target = np.stack([rng.permuted(np.tile(np.arange(-1, 4), (2, 2, 1)), axis=2)] * 2)[..., :4]
    views = storage.views(0)
    wanted = [each.copy() for each in (*views.keys, *views.values)]
    for layer in range(2):
        commit(wanted[layer], key[layer], target[layer])
        commit(wanted[2 + layer], value[layer], target[layer])
    target = target.astype(np.int32)
    storage.write(Update(key, value, target, views.score, views.position), 0)
    for ours, theirs in zip(wanted, (*views.keys, *views.values), strict=True):
        np.testing.assert_array_equal(ours, theirs)
