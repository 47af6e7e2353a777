"""Points compared over shared questions, and those that may be taken for the best."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.paired import (
    GRID,
    beats,
    compare,
    indistinguishable,
    interval95,
    mean_score,
    paired_interval95,
)
from tightrope.point import OperatingPoint
from tightrope.quality_file import MeasuredPoint, Outcome


def point(number: int) -> OperatingPoint:
    return OperatingPoint(kv_budget=number + 1)


def measured(
    number: int, scores: Sequence[float], beaten_by: int | None = None, first: int = 0
) -> MeasuredPoint:
    """A point asked questions `first`, `first` + 1, and so on."""
    return MeasuredPoint(
        point=point(number),
        outcomes=tuple(
            Outcome(
                question=f"q{place}",
                score=score,
                text="",
                completion_tokens=1,
                thinking_tokens=0,
                finish_reason="stop",
            )
            for place, score in enumerate(scores, first)
        ),
        beaten_by=None if beaten_by is None else point(beaten_by),
    )


def numbers(points: Sequence[MeasuredPoint]) -> list[int]:
    return [found.point.kv_budget - 1 for found in points if isinstance(found.point.kv_budget, int)]


def mcnemar(only_first: int, only_second: int) -> float:
    """The textbook's exact test: twice a tail of the binomial distribution."""
    n, k = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / float(2**n))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 40))
def test_of_right_and_wrong_it_is_mcnemars_exact_test(a: int, b: int, both: int) -> None:
    first = measured(0, [1.0] * a + [0.0] * b + [1.0] * both)
    second = measured(1, [0.0] * a + [1.0] * b + [1.0] * both)
    found = compare(first, second)
    assert found.p_value == pytest.approx(mcnemar(a, b), rel=1e-6, abs=1e-12)
    assert found.shared == a + b + both
    assert found.difference == pytest.approx((a - b) / max(1, a + b + both))


@given(st.lists(st.tuples(st.integers(0, GRID), st.integers(0, GRID)), min_size=1, max_size=9))
def test_of_partial_scores_it_is_what_all_signs_give(pairs: list[tuple[int, int]]) -> None:
    differences = [ours - theirs for ours, theirs in pairs]
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    share = sum(value >= abs(sum(differences)) for value in sums) / len(sums)
    found = compare(
        measured(0, [ours / GRID for ours, _ in pairs]),
        measured(1, [theirs / GRID for _, theirs in pairs]),
    )
    assert found.p_value == pytest.approx(share, abs=1e-9)


def test_equal_points_are_told_apart_in_one_of_twenty_at_most() -> None:
    # Over all ways in which ten questions may differ: the test's own promise, exactly.
    wrongly = sum(
        comb(10, k)
        for k in range(11)
        if compare(
            measured(0, [1.0] * k + [0.0] * (10 - k)), measured(1, [0.0] * k + [1.0] * (10 - k))
        ).told_apart
    )
    assert 0 < wrongly / 2**10 <= 0.05


@given(st.lists(st.sampled_from([0.0, 0.3, 1.0]), max_size=30), st.integers(0, 40))
def test_a_comparison_is_the_same_the_other_way_round(scores: list[float], first: int) -> None:
    one, other = measured(0, scores), measured(1, [0.6] * 30, first=first)
    there, back = compare(one, other), compare(other, one)
    assert (there.shared, there.p_value) == (back.shared, back.p_value)
    assert there.difference == -back.difference
    assert there.shared == max(0, len(scores) - first)


def test_two_thousand_questions_of_any_scores_are_compared_at_once() -> None:
    scores = [(place * 7919 % 61) / 60 for place in range(2000)]
    better = [min(1.0, score + 0.25) for score in scores]
    found = compare(measured(0, better), measured(1, scores))
    assert found.told_apart and found.difference > 0.2


def test_the_best_comes_first_and_those_like_it_in_order() -> None:
    slightly_worse = [1.0] * 78 + [0.0] * 22
    points = [
        measured(0, [1.0] * 50 + [0.0] * 50),
        measured(1, slightly_worse),
        measured(2, [1.0] * 80 + [0.0] * 20),
        measured(3, slightly_worse),
    ]
    assert numbers(indistinguishable(points)) == [2, 1, 3]


def test_few_questions_do_not_lead_by_luck() -> None:
    lucky, thorough = measured(0, [1.0] * 5), measured(1, [1.0] * 270 + [0.0] * 30)
    assert numbers(indistinguishable([lucky, thorough])) == [1]


def test_what_was_hardly_asked_does_not_stand_in_for_the_best() -> None:
    best = measured(0, [1.0] * 90 + [0.0] * 10)
    assert numbers(indistinguishable([best, measured(1, [1.0] * 45 + [0.0] * 4)])) == [0]
    assert numbers(indistinguishable([best, measured(1, [1.0] * 45 + [0.0] * 5)])) == [0, 1]


def test_other_questions_stand_in_for_none() -> None:
    here, elsewhere = measured(0, [1.0] * 30), measured(1, [1.0] * 29, first=100)
    assert numbers(indistinguishable([here, elsewhere])) == [0]


def test_a_beaten_point_is_left_out_only_beside_what_beat_it() -> None:
    scores = [1.0] * 60 + [0.0] * 40
    beaten, winner, third = measured(0, scores, 1), measured(1, scores), measured(2, scores)
    assert numbers(indistinguishable([beaten, winner, third])) == [1, 2]
    assert numbers(indistinguishable([beaten, third])) == [0, 2]


def test_points_that_beat_each_other_in_a_damaged_file_are_all_there() -> None:
    points = [measured(0, [1.0] * 10, 1), measured(1, [1.0] * 10, 0)]
    assert numbers(indistinguishable(points)) == [0, 1]


def test_one_that_is_better_where_both_were_asked_is_not_left_out() -> None:
    # The best over all of its questions, and one that does better on the hard ones they share.
    wide = measured(0, [0.0] * 40 + [1.0] * 160 + [1.0] * 200)
    hard = measured(1, [1.0] * 170 + [0.0] * 30)
    assert numbers(indistinguishable([wide, hard])) == [0, 1]


def test_where_nothing_was_asked_all_are_alike() -> None:
    assert indistinguishable([]) == ()
    assert numbers(indistinguishable([measured(0, []), measured(1, [])])) == [0, 1]
    assert numbers(indistinguishable([measured(0, []), measured(1, [0.0] * 5)])) == [1]
    assert mean_score(measured(0, [])) is None


SCORES = st.lists(st.sampled_from([0.0, 0.3, 1.0]), max_size=40)


@given(st.lists(SCORES, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_choice_is_of_the_points_and_does_not_hang_on_their_order(
    scores: list[list[float]], random: object
) -> None:
    points = [measured(number, some) for number, some in enumerate(scores)]
    chosen = indistinguishable(points)
    assert chosen and set(numbers(chosen)) <= set(range(len(points)))
    best = chosen[0]
    equal = [other for other in points if mean_score(other) == mean_score(best)]
    if len(equal) == 1:  # else another of the equals may lead
        shuffled = list(points)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        assert set(numbers(indistinguishable(shuffled))) == set(numbers(chosen))


@given(st.integers(1, 60), st.data())
def test_of_points_asked_alike_the_best_has_the_highest_mean(n: int, data: st.DataObject) -> None:
    scores = st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)
    points = [measured(number, data.draw(scores)) for number in range(4)]
    means = [mean_score(each) or 0.0 for each in points]
    assert mean_score(indistinguishable(points)[0]) == max(means)


@given(st.integers(1, 500), st.data())
def test_an_interval_holds_its_share(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    low, high = interval95(right, n)
    assert 0.0 <= low <= right / n <= high <= 1.0


def test_who_beats_whom_is_what_comparing_them_says() -> None:
    rng = np.random.default_rng(5)
    rows = [(rng.random(80) < 0.3 + 0.12 * n).astype(float).tolist() for n in range(6)]
    points = [measured(n, row) for n, row in enumerate(rows)]
    points.append(measured(6, []))
    found = beats(points)
    assert found.any() and not (found & found.T).any()
    for one, first in enumerate(points):
        for other, second in enumerate(points):
            comparison = compare(first, second)
            expected = comparison.told_apart and comparison.difference > 0
            assert found[one, other] == expected


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.3, 1.0]), max_size=60))
def test_the_interval_holds_the_difference_and_turns_round_with_it(
    differences: list[float],
) -> None:
    values = np.array(differences, dtype=np.float64)
    low, high = paired_interval95(values)
    assert -1 <= low < high <= 1
    assert low <= (values.mean() if differences else 0.0) <= high
    assert paired_interval95(-values) == pytest.approx((-high, -low))


def test_the_interval_of_right_and_wrong_is_bonetts_and_prices() -> None:
    # 40 questions, of which the first alone answered 9 and the second alone 2.
    values = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 29)
    p, q, n = (9 + 1) / 42, (2 + 1) / 42, 42
    half = 1.959964 * ((p + q - (p - q) ** 2) / n) ** 0.5
    assert paired_interval95(values) == pytest.approx((p - q - half, p - q + half))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    for chances in ([0.1, 0.85, 0.05], [0.02, 0.96, 0.02], [0.3, 0.5, 0.2]):
        truth = chances[0] - chances[2]
        drawn = rng.choice([1.0, 0.0, -1.0], size=(1000, 60), p=chances)
        held = [low <= truth <= high for low, high in map(paired_interval95, drawn)]
        assert np.mean(held) > 0.935


def test_a_comparison_has_its_interval() -> None:
    first, second = measured(0, [1.0] * 30 + [0.0] * 10), measured(1, [1.0] * 20 + [0.0] * 20)
    found = compare(first, second)
    assert found.interval[0] < found.difference == 0.25 < found.interval[1]
    assert compare(first, measured(1, [1.0], first=99)).interval == (-1.0, 1.0)
