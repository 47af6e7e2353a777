"""Counts of right answers, and Wilson's interval around them."""

from __future__ import annotations

import pytest

from tightrope.profiles.task.tally import Tally, tallies, tally


def test_questions_without_a_reference_are_not_counted() -> None:
    assert tally([1.0, None, 0.0, 0.5]) == Tally(n=3, right=1.5)
    assert tally([None]) == tally([]) == Tally(n=0, right=0.0)


def test_nothing_asked_has_neither_accuracy_nor_interval() -> None:
    told = Tally(n=0, right=0.0).to_dict()
    assert told == {"n": 0, "right": 0.0, "accuracy": None, "interval": None}


def test_each_name_has_its_own_tally_in_the_order_of_the_first_question() -> None:
    found = tallies(["b", "a", None, "b"], [1.0, 0.0, 1.0, None])
    assert list(found.items()) == [("b", Tally(n=1, right=1.0)), ("a", Tally(n=1, right=0.0))]


@pytest.mark.parametrize(
    ("n", "right", "low", "high"),
    # Newcombe (1998), table I, and the limits that the formula gives at its ends.
    [
        (263, 81, 0.2553, 0.3662),
        (148, 15, 0.0624, 0.1605),
        (20, 0, 0.0, 0.1611),
        (29, 1, 0.0061, 0.1718),
    ],
)
def test_intervals_are_wilsons(n: int, right: float, low: float, high: float) -> None:
    assert Tally(n=n, right=right).interval == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("right", [0.0, 0.3, 2.5, 5.0])
def test_an_interval_stays_in_bounds_and_holds_the_accuracy(right: float) -> None:
    tally = Tally(n=5, right=right)
    assert tally.interval is not None and tally.accuracy is not None
    low, high = tally.interval
    assert 0 <= low <= tally.accuracy <= high <= 1
