"""The knee: where more of the cost begins to buy little."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.profiles.frontier.knee import knee


def test_it_is_the_point_farthest_above_the_line_between_the_ends() -> None:
    assert knee([10, 20, 30, 110], [0.2, 0.7, 0.75, 0.9]) == 1
    assert knee([10, 60, 110], [0.2, 0.9, 0.95]) == 1


@pytest.mark.parametrize(
    ("costs", "worths"),
    [
        ([], []),
        ([10], [0.5]),
        ([10, 20], [0.5, 0.6]),
        ([10, 20, 30], [0.1, 0.2, 0.3]),  # a straight line
        ([10, 20, 30], [0.1, 0.12, 0.9]),  # it bends the other way
        ([10, 10, 10], [0.1, 0.5, 0.9]),
        ([10, 20, 30], [0.5, 0.5, 0.5]),
    ],
)
def test_where_nothing_lies_above_the_line_there_is_none(
    costs: list[float], worths: list[float]
) -> None:
    assert knee(costs, worths) is None


@given(
    st.lists(st.integers(1, 1000), min_size=3, max_size=9, unique=True),
    st.lists(st.integers(1, 1000), min_size=9, max_size=9, unique=True),
    st.integers(-9, 9),
    st.integers(-9, 9),
)
def test_units_do_not_move_it(costs: list[int], worths: list[int], one: int, other: int) -> None:
    x, y = sorted(costs), sorted(worths[: len(costs)])
    scaled = [value * 2.0**one for value in x], [value * 2.0**other for value in y]
    assert knee(*scaled) == knee(x, y)
