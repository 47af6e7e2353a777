"""Own quantisation: four bits around zero or from a zero point, eight bits, blocks that fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.export.rounding import Rounding  # noqa: E402

shapes = st.tuples(st.integers(1, 600), st.sampled_from([32, 64, 96, 192, 448]))


def drawn(shape: tuple[int, int], seed: int, middle: float = 0.0) -> Any:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(middle, 0.05, shape).astype(np.float32))


def squared(weight: Any, rounding: Rounding, name: str = "w") -> float:
    read = rounding.coded(name, weight).weight()
    return float(((read - weight.numpy()) ** 2).mean())


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 10**6), st.sampled_from([32, 64, 128]), st.booleans())
def test_a_weight_is_off_by_little_more_than_half_a_step(
    shape: Any, seed: int, block_size: int, symmetric: bool
) -> None:
    weight, rounding = drawn(shape, seed), Rounding(block_size, symmetric)
    read = rounding.coded("w", weight)
    assert read.bits == 4 and read.codes.min() >= -8 and read.codes.max() <= 7
    assert (read.zero is None) is symmetric and (read.scale > 0).all()
    if read.zero is not None:
        assert read.zero.min() >= -8 and read.zero.max() <= 7
    assert shape[1] % read.form.block_size == 0 and read.form.block_size <= block_size
    # The smallest scale that is tried loses a fifth of the range.
    off = np.abs(read.weight() - weight.numpy()).max()
    assert off <= 0.21 * np.abs(weight.numpy()).max() + read.scale.max()


def test_a_zero_point_is_worth_something_where_weights_do_not_lie_around_zero() -> None:
    weight = drawn((64, 128), 0, middle=0.1)
    assert squared(weight, Rounding(32, symmetric=False)) < 0.7 * squared(weight, Rounding(32))


def test_larger_blocks_and_fewer_bits_lose_more() -> None:
    weight = drawn((64, 256), 1)
    losses = [squared(weight, Rounding(size)) for size in (32, 64, 128)]
    assert losses == sorted(losses)
    eight = Rounding(128, eight_bits=frozenset({"w"}))
    assert squared(weight, eight) < losses[0] / 50
    assert squared(weight, eight, "other") == losses[2]


def test_eight_bits_have_no_zero_points() -> None:
    rounding = Rounding(64, symmetric=False, eight_bits=frozenset({"w"}))
    read = rounding.coded("w", drawn((5, 128), 2))
    assert read.bits == 8 and read.zero is None and read.form.words().startswith("int8 by 64")


@pytest.mark.parametrize(
    ("inputs", "block_size", "found"), [(448, 128, 64), (192, 128, 64), (96, 64, 32), (128, 64, 64)]
)
def test_a_block_is_the_largest_that_the_inputs_are_whole_numbers_of(
    inputs: int, block_size: int, found: int
) -> None:
    weight = drawn((3, inputs), 0)
    assert Rounding(block_size).fits(weight)
    assert Rounding(block_size).coded("w", weight).form.block_size == found


def test_what_has_no_whole_blocks_of_32_does_not_fit() -> None:
    assert not Rounding(128).fits(drawn((3, 48), 0)) and not Rounding(32).fits(drawn((3, 80), 0))


@pytest.mark.parametrize(
    ("rounding", "bits"),
    [
        (Rounding(32), 4.5),
        (Rounding(64), 4.25),
        (Rounding(64, symmetric=False), 4.3125),
        (Rounding(64, symmetric=False, eight_bits=frozenset({"w"})), 8.25),
    ],
)
def test_bits_are_those_that_are_stored(rounding: Rounding, bits: float) -> None:
    assert rounding.bits_of("w") == bits
    read = rounding.coded("w", drawn((8, 128), 3))
    parts = read.codes.size * read.bits + read.scale.nbytes * 8
    parts += 0 if read.zero is None else read.zero.size * 4
    assert parts / read.codes.size == bits


def test_a_matrix_in_pieces_is_rounded_as_one() -> None:
    weight = drawn((700, 64), 4)
    whole = Rounding(32, symmetric=False).coded("w", weight)
    last = Rounding(32, symmetric=False).coded("w", weight[600:])
    np.testing.assert_array_equal(whole.codes[:, 600:], last.codes)
    np.testing.assert_array_equal(whole.scale[:, 600:], last.scale)
