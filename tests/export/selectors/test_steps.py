"""Steps that selectors share: what no selector's own numbers would show."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tightrope.export.selectors.steps import best, ranking, unit


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=300), st.data())
def test_equal_scores_go_to_the_lower_index(scores: list[int], data: Any) -> None:
    keep = data.draw(st.integers(1, len(scores)))
    by_rank = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    score = np.asarray(scores, np.float32)
    assert ranking(score).tolist() == by_rank
    assert best(score, keep).tolist() == sorted(by_rank[:keep])


def test_a_row_of_zeros_stays_and_others_get_length_one() -> None:
    rows = np.asarray([[0, 0], [3, 4], [0, 1e-3]], np.float32)
    want = np.asarray([[0, 0], [0.6, 0.8], [0, 1]], np.float32)
    np.testing.assert_allclose(unit(rows), want, rtol=1e-6)
