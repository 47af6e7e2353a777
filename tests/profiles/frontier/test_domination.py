"""Domination: what is left is never empty and says all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tightrope.profiles.frontier.domination import Candidate, dominators

FIGURES = st.integers(0, 6).map(float)
CANDIDATE = st.builds(
    Candidate,
    cost=st.none() | FIGURES,
    worth=st.none() | st.tuples(FIGURES) | st.tuples(FIGURES, FIGURES),
)
KNOWN = st.builds(Candidate, cost=FIGURES, worth=st.tuples(FIGURES))


def left(candidates: list[Candidate]) -> list[int]:
    found = dominators(candidates)
    return [place for place, by in enumerate(found) if by is None]


@given(st.lists(KNOWN, min_size=1, max_size=12))
def test_somebody_is_always_left(candidates: list[Candidate]) -> None:
    assert left(candidates)


@given(st.lists(CANDIDATE, max_size=12))
def test_whoever_dominates_is_dominated_by_none_and_is_really_better(
    candidates: list[Candidate],
) -> None:
    found = dominators(candidates)
    for place, by in enumerate(found):
        if by is None:
            continue
        one, other = candidates[by], candidates[place]
        assert found[by] is None
        assert None not in (one.cost, one.worth, other.cost, other.worth)
        assert one.cost <= other.cost and one.worth >= other.worth  # type: ignore[operator]
        assert one != other


@given(st.lists(KNOWN, max_size=12))
def test_whoever_is_left_is_beaten_by_none_of_all(candidates: list[Candidate]) -> None:
    for place in left(candidates):
        one = candidates[place]
        assert one.cost is not None and one.worth is not None
        for other in candidates:
            assert other.cost is not None and other.worth is not None
            better = other.cost <= one.cost and other.worth >= one.worth
            assert not better or (other.cost, other.worth) == (one.cost, one.worth)


@given(st.lists(CANDIDATE, max_size=12))
def test_without_the_dominated_ones_the_same_are_left(candidates: list[Candidate]) -> None:
    kept = [candidates[place] for place in left(candidates)]
    assert left(kept) == list(range(len(kept)))


@given(st.lists(CANDIDATE, max_size=12), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(candidates: list[Candidate], random: object) -> None:
    order = list(range(len(candidates)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = left([candidates[place] for place in order])
    assert sorted(order[place] for place in shuffled) == left(candidates)


def test_what_is_unknown_neither_dominates_nor_is_dominated() -> None:
    known = Candidate(cost=5.0, worth=(0.5,))
    untimed, unasked = Candidate(cost=None, worth=(1.0,)), Candidate(cost=1.0, worth=None)
    assert dominators([known, untimed, unasked]) == (None, None, None)


def test_equals_are_left_side_by_side_and_the_most_worthy_is_named() -> None:
    best, twin = (Candidate(cost=2.0, worth=(0.9,)) for _ in range(2))
    cheap, poor = Candidate(cost=1.0, worth=(0.6,)), Candidate(cost=3.0, worth=(0.5,))
    assert dominators([cheap, poor, best, twin]) == (None, 2, None, None)
