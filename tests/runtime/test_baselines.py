"""Selectors that look at nothing."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.point import keep_count
from tightrope.runtime.baselines import BASELINES, Baseline, random, uniform


@pytest.mark.parametrize("name", sorted(BASELINES))
@given(st.integers(0, 3), st.integers(1, 80), st.data(), st.integers(0, 2**32))
def test_indices_are_distinct_ascending_and_in_range(
    name: str, number: int, available: int, data: Any, seed: int
) -> None:
    keep = data.draw(st.integers(1, available))
    index = BASELINES[name].indices(number, available, keep, seed)
    assert index.dtype == np.int64 and index.shape == (keep,)
    assert (np.diff(index) > 0).all()
    assert index.min() >= 0 and index.max() < available


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_keeping_all_keeps_the_order(name: str) -> None:
    np.testing.assert_array_equal(BASELINES[name].indices(1, 9, 9, 3), np.arange(9))


@given(st.integers(1, 80), st.data())
def test_uniform_leaves_no_gap_much_wider_than_another(available: int, data: Any) -> None:
    keep = data.draw(st.integers(1, available))
    index = uniform(0, available, keep, 0)
    if keep > 1:
        assert np.ptp(np.diff(index)) <= 1
    before, behind = index[0], available - 1 - index[-1]
    assert abs(int(before) - int(behind)) <= 1


def test_random_follows_the_seed_and_differs_between_images() -> None:
    first = random(0, 200, 40, seed=5)
    np.testing.assert_array_equal(first, random(0, 200, 40, seed=5))
    assert (first != random(0, 200, 40, seed=6)).any()
    assert (first != random(1, 200, 40, seed=5)).any()


@pytest.mark.parametrize(("name", "baseline"), BASELINES.items())
def test_an_entry_says_everything(name: str, baseline: Baseline) -> None:
    assert baseline.name == name
    assert baseline.paper.startswith("baseline: ")
    assert 1 <= keep_count(baseline.default_keep, 576) < 576
