"""DivPrune: what makes the method what it is."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tightrope.arrays import Floats, Indices
from tightrope.export.selectors import Image
from tightrope.export.selectors.divprune import DIVPRUNE
from tightrope.interface.tensors import VISUAL_EMBEDS

SIGNS = np.asarray([-1, 1], np.float32)
cases = st.tuples(st.integers(1, 3), st.integers(1, 40), st.data(), st.integers(0, 10**6))


def scene(rng: np.random.Generator, images: int, available: int, _: Floats) -> dict[str, Floats]:
    """Rows of +-1: cosines are exact in float32, and many are equal."""
    return {VISUAL_EMBEDS: rng.choice(SIGNS, size=(images, available, 16))}


def choose(rows: Floats, keep: int) -> Indices:
    return DIVPRUNE.reference(Image(visual_embeds=rows), keep).index


def gaps(rows: Any, keep: int) -> float:
    """The smallest lead of a chosen token over the next best, over all choices."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    alike = rows.astype(np.float64) @ rows.T.astype(np.float64)
    farthest = np.where(np.eye(len(rows), dtype=bool), -2, alike).max(1)
    closest, left, smallest = np.full(len(rows), -2.0), np.ones(len(rows), bool), np.inf
    for _ in range(keep):
        pick = np.flatnonzero(left)[farthest[left].argmin()]
        left[pick] = False
        if left.any():
            smallest = min(smallest, farthest[left].min() - farthest[pick])
        closest = farthest = np.maximum(closest, alike[pick])
    return float(smallest)


@settings(max_examples=40, deadline=None)
@given(cases)
def test_the_graph_equals_the_reference_on_real_numbers(agree: Any, case: Any) -> None:
    images, available, data, seed = case
    keep = data.draw(st.integers(1, available))
    rng = np.random.default_rng(seed)
    embeds = rng.normal(size=(images, available, 16)).astype(np.float32)
    assume(min(gaps(image, keep) for image in embeds) > 1e-5)
    agree("divprune", {VISUAL_EMBEDS: embeds}, keep)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 24))
def test_reordered_tokens_give_the_same_choice(seed: int, keep: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(24, 16)).astype(np.float32)
    assume(gaps(rows, keep) > 1e-5)
    order = rng.permutation(24)
    np.testing.assert_array_equal(np.sort(order[choose(rows[order], keep)]), choose(rows, keep))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 24))
def test_the_length_of_a_token_does_not_matter(seed: int, keep: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.choice(SIGNS, size=(24, 16))
    longer = rows * 2.0 ** rng.integers(-3, 4, size=(24, 1)).astype(np.float32)
    np.testing.assert_array_equal(choose(longer, keep), choose(rows, keep))


@pytest.mark.parametrize("planted", [0, 11, 24])
def test_a_token_unlike_all_others_is_kept(run: Any, planted: int) -> None:
    rows = np.random.default_rng(1).normal(size=(25, 16)).astype(np.float32)
    rows[:, 0], rows[planted] = 0, 0
    rows[planted, 0] = 1
    index, _ = run("divprune", {VISUAL_EMBEDS: rows[None]}, 2)
    assert planted in index


def test_twins_are_kept_last_and_never_twice(run: Any) -> None:
    different = np.eye(4, 16, dtype=np.float32)
    rows = np.concatenate([different, different])
    assert choose(rows, 4).tolist() == [0, 1, 2, 3]
    for keep in range(1, 9):
        index, _ = run("divprune", {VISUAL_EMBEDS: rows[None]}, keep)
        assert index[0].tolist() == list(range(keep))
