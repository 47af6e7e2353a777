"""Published codes, put into those that a product reads: the weight stays the number that it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import UnsupportedModel
from tightrope.export.coded import Coded, coded

shapes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from([16, 32, 64]))
seeds = st.integers(0, 10**6)


def drawn(shape: Any, seed: int, low: int, high: int) -> tuple[Any, Any]:
    """Levels [N,K] and scales [N,K/block] of either sign, some of them zero."""
    rows, groups, block = shape
    rng = np.random.default_rng(seed)
    levels = rng.integers(low, high + 1, (rows, groups * block)).astype(np.int8)
    scale = rng.normal(0, 0.01, (rows, groups)).astype(np.float16).astype(np.float32)
    scale[rng.random(scale.shape) < 0.1] = 0
    return levels, scale


def meant(levels: Any, scale: Any, minimum: Any = None) -> Any:
    """The weight in float64."""
    block = levels.shape[1] // scale.shape[1]
    weight = levels.astype(np.float64) * np.repeat(scale.astype(np.float64), block, 1)
    return weight if minimum is None else weight + np.repeat(minimum.astype(np.float64), block, 1)


def assert_stored_well(read: Coded) -> None:
    low, high = (-8, 7) if read.bits == 4 else (-128, 127)
    assert read.codes.dtype == np.int8 and read.codes.min() >= low and read.codes.max() <= high
    assert (read.scale > 0).all() and (read.scale.astype(np.float16) > 0).all()
    assert read.zero is None or (read.bits == 4 and read.shift is None)
    if read.zero is not None:
        assert read.zero.min() >= -8 and read.zero.max() <= 7


@settings(max_examples=80, deadline=None)
@given(shapes, seeds, st.sampled_from([(4, -8, 7), (4, 0, 15), (5, -16, 15), (8, -128, 127)]))
def test_levels_with_scales_of_either_sign_are_the_same_numbers(
    shape: Any, seed: int, kind: Any
) -> None:
    bits, low, high = kind
    levels, scale = drawn(shape, seed, low, high)
    read = coded("w", levels, bits, scale, None)
    assert_stored_well(read)
    assert read.bits == (4 if bits == 4 else 8)
    np.testing.assert_array_equal(read.weight(), meant(levels, scale).astype(np.float32))


@settings(max_examples=80, deadline=None)
@given(shapes, seeds, st.sampled_from([4, 5]))
def test_minima_between_the_levels_are_kept_beside_the_codes(
    shape: Any, seed: int, bits: int
) -> None:
    levels, scale = drawn(shape, seed, 0, (1 << bits) - 1)
    minimum = np.random.default_rng(seed).normal(0, 0.05, scale.shape).astype(np.float16)
    minimum = minimum.astype(np.float32)
    read = coded("w", levels, bits, scale, minimum)
    assert_stored_well(read)
    wanted = meant(levels, scale, minimum)
    np.testing.assert_allclose(read.weight(), wanted, rtol=0, atol=2**-23 * np.abs(wanted).max())
    if bits == 4 and read.zero is None and (scale != 0).all():
        assert read.shift is not None, "random minima are no whole steps"


@settings(max_examples=80, deadline=None)
@given(shapes, seeds)
def test_minima_of_whole_steps_become_zeros(shape: Any, seed: int) -> None:
    levels, scale = drawn(shape, seed, 0, 15)
    scale = np.abs(scale) + np.float32(2**-10)
    steps = np.random.default_rng(seed).integers(-15, 1, scale.shape).astype(np.float32)
    read = coded("w", levels, 4, scale, steps * scale)
    assert_stored_well(read)
    assert read.shift is None
    np.testing.assert_array_equal(read.weight(), meant(levels, scale, steps * scale))


def test_a_symmetric_matrix_has_neither_zeros_nor_minima() -> None:
    levels, scale = drawn((3, 2, 32), 0, -8, 7)
    read = coded("w", levels, 4, np.abs(scale), None)
    assert read.zero is None and read.shift is None
    assert read.form.block_size == 32 and read.scale.dtype == np.float16


def test_scales_of_more_digits_than_float16_has_stay_float32() -> None:
    levels, scale = drawn((3, 2, 32), 0, -8, 7)
    read = coded("w", levels, 4, np.abs(scale) * np.float32(1.0001), None)
    assert read.scale.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["scale", "minimum"])
def test_scales_that_are_no_numbers_name_their_tensor(value: float, where: str) -> None:
    levels, scale = drawn((3, 2, 32), 0, 0, 15)
    parts = {"scale": scale, "minimum": scale.copy()}
    parts[where][1, 1] = value
    with pytest.raises(UnsupportedModel, match=r"down\.weight has scales or minima that are NaN"):
        coded("down.weight", levels, 4, parts["scale"], parts["minimum"])


def test_scales_beyond_float16_name_their_tensor() -> None:
    levels, scale = drawn((3, 2, 32), 0, -8, 7)
    scale[0, 0] = 1e6
    with pytest.raises(UnsupportedModel, match=r"down\.weight has .* float16 cannot .*fp32"):
        coded("down.weight", levels, 4, scale, None)
