"""Whether agreement tells accuracy: ranks, and which points count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.point import OperatingPoint
from tightrope.profiles.quality.agreement import rank_correlation, spearman
from tightrope.quality_file import MeasuredPoint, Outcome, Quality, QualityKey

stats = pytest.importorskip("scipy.stats")

ALL = OperatingPoint(resolution=336)
KEY = QualityKey(
    bundle="ab" * 32, task="cd" * 32, task_name="scenes", measure="accuracy", max_tokens=8
)


def measured(
    number: int, right: int, same: int, *, tokens: float | None = 0.5, n: int = 20
) -> MeasuredPoint:
    """A point with `right` right answers, and `same` that say what is said at everything."""
    return MeasuredPoint(
        point=ALL if number == 0 else OperatingPoint(kv_budget=number),
        outcomes=tuple(
            Outcome(
                question=f"q{place}",
                score=float(place < right),
                token_agreement=tokens,
                text="<think> 1 </think> red" if place >= n - same else "blue",
                completion_tokens=1,
                thinking_tokens=0,
                finish_reason="stop",
            )
            for place in range(n)
        ),
    )


def quality(points: Sequence[MeasuredPoint]) -> Quality:
    return Quality(key=KEY, points=tuple(points))


EVERYTHING = measured(0, 18, 20)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12))
def test_it_is_spearmans_of_an_independent_library(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(values) / 7 for values in zip(*pairs, strict=True))
    found = spearman(first.tolist(), second.tolist())
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)


def test_what_is_said_behind_the_thought_counts_and_everything_itself_does_not() -> None:
    points = [EVERYTHING, measured(1, 12, 16), measured(2, 9, 13), measured(3, 6, 4)]
    found = rank_correlation(quality(points), ALL)
    assert found is not None
    assert found.points == 3 and found.answers == pytest.approx(1.0)
    turned = [EVERYTHING, measured(1, 12, 4), measured(2, 9, 13), measured(3, 6, 16)]
    found = rank_correlation(quality(turned), ALL)
    assert found is not None and found.answers == pytest.approx(-1.0)


def test_tokens_in_their_places_are_ranked_beside_it() -> None:
    shares = (0.3, 0.6, 0.9)
    points = [
        measured(number, right, 10, tokens=share)
        for number, (right, share) in enumerate(zip((6, 9, 12), shares, strict=True), start=1)
    ]
    found = rank_correlation(quality([EVERYTHING, *points]), ALL)
    assert found is not None
    assert found.answers is None and found.tokens == pytest.approx(1.0)
    assert "rank correlation of unknown with accuracy" in found.in_words()
    assert "1.00" in found.in_words()
    unknown = [*points[:2], measured(3, 12, 10, tokens=None)]
    found = rank_correlation(quality([EVERYTHING, *unknown]), ALL)
    assert found is not None and found.tokens is None


def test_points_that_left_the_race_do_not_count() -> None:
    left = replace(measured(4, 1, 19), beaten_by=ALL)
    points = [EVERYTHING, measured(1, 12, 16), measured(2, 9, 13), measured(3, 6, 4), left]
    found = rank_correlation(quality(points), ALL)
    assert found is not None and found.points == 3 and found.answers == pytest.approx(1.0)
    assert rank_correlation(quality([*points[:3], left]), ALL) is None


def test_without_labels_or_without_the_unpruned_point_nothing_is_said() -> None:
    points = [EVERYTHING, measured(1, 12, 16), measured(2, 9, 13), measured(3, 6, 4)]
    assert rank_correlation(quality(points[1:]), ALL) is None
    without = replace(quality(points), key=replace(KEY, measure="agreement"))
    assert rank_correlation(without, ALL) is None
