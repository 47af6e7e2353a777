"""The kernel `likeliest` in Triton's interpreter, and what its reference promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tightrope.plugins.likeliest import BLOCK, COUNT
from tightrope.plugins.likeliest.reference import likeliest

HERE = Path(__file__).parent


def test_the_kernel_gives_what_the_reference_does(interpreted: Callable[..., Any]) -> None:
    assert interpreted(HERE / "interpreted.py") == [True] * 5


@given(st.integers(1, 3 * BLOCK), st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 8]))
def test_what_is_not_given_is_no_likelier_than_the_last_of_its_block(
    vocabulary: int, seed: int, decimals: int
) -> None:
    logits = np.random.default_rng(seed).normal(size=(2, vocabulary)).round(decimals)
    logits = logits.astype(np.float32)
    values, tokens = likeliest(logits)
    assert values.shape == tokens.shape == (2, -(-vocabulary // BLOCK), COUNT)
    for row, largest, ids in zip(logits, values, tokens, strict=True):
        told = largest > -np.inf
        np.testing.assert_array_equal(row[ids[told]], largest[told])
        assert len(set(ids[told].tolist())) == told.sum()
        left = np.delete(row, ids[told])
        assert not len(left) or left.max() <= largest[:, -1].max()
        assert row.argmax() in ids[told]
