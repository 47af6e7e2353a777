"""The race against fields whose points are known: the best stays, the worse leave, early."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.arrays import Floats
from tightrope.profiles.quality.race import ERROR, FIRST_ROUND, capital, leavers, round_ends

Scores = dict[str, dict[str, float]]
Field = tuple[Scores, dict[str, tuple[float, ...]]]
QUESTIONS = 300
SCORE = st.sampled_from([0.0, 0.3, 0.5, 1.0])


def floats(numbers: Sequence[float]) -> Floats:
    """[N]"""
    return np.array(numbers, np.float32)


def raced(accuracies: Sequence[float], costs: Sequence[float], seed: int) -> dict[int, int]:
    """After how many questions each point left."""
    generator = np.random.default_rng(seed)
    hard = generator.random(QUESTIONS)  # half of the luck is the question's
    drawn = [
        (hard + generator.random(QUESTIONS)) / 2 + accuracy - 0.5 > 0.5 for accuracy in accuracies
    ]
    racing, left = list(range(len(accuracies))), {}
    for end in round_ends(QUESTIONS):
        scores = {
            point: {str(number): float(drawn[point][number]) for number in range(end)}
            for point in racing
        }
        spent = {point: (costs[point],) for point in racing}
        for point in leavers(scores, spent, len(accuracies)):
            racing.remove(point)
            left[point] = end
    return left


def test_rounds_double_until_all_is_asked() -> None:
    assert round_ends(300) == [32, 64, 128, 256, 300]
    assert round_ends(32) == [32]
    assert round_ends(5) == [5]
    assert round_ends(33) == [32, 33]
    assert round_ends(1000)[0] == FIRST_ROUND


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_nobody_gets_richer_on_average_where_signs_are_tossed_for(sizes: list[float]) -> None:
    signs = itertools.product((-1, 1), repeat=len(sizes))
    grown = [capital(floats(sizes) * floats(sign)) for sign in signs]
    assert np.mean(grown) == pytest.approx(1.0, rel=1e-5)


def test_capital_grows_with_what_speaks_for_it_and_never_overflows() -> None:
    assert capital(floats([])) == 1.0
    assert capital(floats([0] * 50)) == 1.0
    few, more = capital(floats([1] * 5)), capital(floats([1] * 10))
    assert 1 < few < more
    assert capital(-floats([1] * 10)) < 1
    assert np.isfinite(capital(floats([1] * 100_000)))


def test_among_equals_the_one_that_is_watched_stays() -> None:
    """The chance is that of any of the five rounds, and is shared by the whole field."""
    left = sum(0 in raced([0.6] * 5, [1.0] * 5, seed) for seed in range(80))
    assert left <= 80 * ERROR


@pytest.mark.parametrize("others", [0.55, 0.45, 0.3])
def test_the_best_stays(others: float) -> None:
    field = [0.6, *[others] * 5]
    left = sum(0 in raced(field, [1.0] * 6, seed) for seed in range(40))
    assert left <= 40 * ERROR


def test_who_is_much_worse_leaves_early_and_who_is_cheaper_stays() -> None:
    leaves = [raced([0.7, 0.4, 0.4], [1.0, 1.0, 0.5], seed) for seed in range(40)]
    early = [left.get(1, QUESTIONS + 1) for left in leaves]
    assert np.mean(np.array(early) <= 128) > 0.9
    assert all(2 not in left for left in leaves)


def test_one_that_spends_more_of_anything_beats_nobody() -> None:
    good = {str(number): 1.0 for number in range(100)}
    bad = dict.fromkeys(good, 0.0)
    scores = {"good": good, "bad": bad}
    assert leavers(scores, {"good": (1.0, 2.0), "bad": (1.0, 2.0)}, 2) == {"bad": "good"}
    assert leavers(scores, {"good": (1.0, 2.1), "bad": (1.5, 2.0)}, 2) == {}


def test_only_questions_that_both_were_asked_count() -> None:
    ours = {str(number): 1.0 for number in range(100)}
    theirs = {str(number): 0.0 for number in range(96, 300)}
    assert leavers({"a": ours, "b": theirs}, {"a": (1.0,), "b": (1.0,)}, 2) == {}
    theirs |= {str(number): 0.0 for number in range(60, 96)}
    assert leavers({"a": ours, "b": theirs}, {"a": (1.0,), "b": (1.0,)}, 2) == {"b": "a"}
    assert leavers({"a": ours, "b": {}}, {"a": (1.0,), "b": (1.0,)}, 2) == {}


def test_a_larger_field_asks_for_more() -> None:
    scores = {name: {str(i): value for i in range(9)} for name, value in (("a", 1.0), ("b", 0.0))}
    costs = {"a": (1.0,), "b": (1.0,)}
    assert leavers(scores, costs, 2) == {"b": "a"}
    assert leavers(scores, costs, 1000) == {}


@st.composite
def fields(draw: st.DrawFn) -> Field:
    count = draw(st.integers(2, 5))
    names = [f"p{number}" for number in range(count)]
    asked = draw(st.integers(20, 60))
    leanings = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=count, max_size=count))
    luck = np.random.default_rng(draw(st.integers(0, 1000)))
    scores = {
        name: {str(q): float(luck.choice([leaning, 0.3])) for q in range(asked)}
        for name, leaning in zip(names, leanings, strict=True)
    }
    spends = st.sampled_from([1.0, 2.0])
    return scores, {name: (draw(spends), draw(spends)) for name in names}


@settings(max_examples=60, deadline=None)
@given(fields(), st.randoms(use_true_random=False))
def test_order_decides_nothing_and_leavers_were_beaten_fairly(field: Field, luck: Random) -> None:
    scores, costs = field
    left = leavers(scores, costs, len(scores))
    names, questions = list(scores), list(next(iter(scores.values())))
    luck.shuffle(names)
    luck.shuffle(questions)
    turned = {name: {q: scores[name][q] for q in questions} for name in names}
    assert leavers(turned, costs, len(scores)) == left
    assert len(left) < len(scores)
    for loser, winner in left.items():
        assert sum(scores[winner].values()) > sum(scores[loser].values())
        assert all(w <= x for w, x in zip(costs[winner], costs[loser], strict=True))


@given(st.lists(SCORE, min_size=1, max_size=200), st.integers(2, 4))
def test_points_that_answer_alike_all_stay(scores: list[float], count: int) -> None:
    same = {str(number): score for number, score in enumerate(scores)}
    field = {f"p{number}": same for number in range(count)}
    assert leavers(field, dict.fromkeys(field, (1.0,)), count) == {}
