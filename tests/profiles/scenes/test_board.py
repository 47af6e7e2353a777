"""Boards: things on squares of their own, counts that are spread out, long lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.profiles.scenes.board import (
    BOARD_TYPES,
    FEWEST_PIECES,
    MOST_ALIKE,
    MOST_PIECES,
    ask_board,
    sample_board,
)
from tightrope.profiles.scenes.draw import draw
from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.sample import scene_rng
from tightrope.profiles.scenes.scene import SIDE, Scene

Answer = Callable[[Question, Scene, int], str]
seeds, numbers = st.integers(0, 2**32 - 1), st.integers(FEWEST_PIECES, MOST_PIECES)


def board(seed: int, pieces: int = MOST_PIECES) -> Scene:
    return sample_board(scene_rng("test", seed, 0), pieces)


@given(seed=seeds, pieces=numbers)
@settings(max_examples=60, deadline=None)
def test_each_thing_has_a_square_of_its_own(seed: int, pieces: int) -> None:
    found = board(seed, pieces)
    assert FEWEST_PIECES <= len(found.things) <= pieces
    squares = [(thing.y * 4 // SIDE, thing.x * 4 // SIDE) for thing in found.things]
    assert squares == sorted(set(squares))
    for (row, column), thing in zip(squares, found.things, strict=True):
        left, top, right, bottom = thing.box
        assert column * 84 < left < right < (column + 1) * 84
        assert row * 84 < top < bottom < (row + 1) * 84
    for attribute in ("shape", "colour"):
        alike = Counter(getattr(thing, attribute) for thing in found.things)
        assert max(alike.values()) <= MOST_ALIKE
    assert sum(thing.striped for thing in found.things) <= MOST_ALIKE


@given(seed=seeds, pieces=numbers, type=st.sampled_from(BOARD_TYPES))
@settings(max_examples=80, deadline=None)
def test_every_question_has_one_answer(
    answer_of: Answer, seed: int, pieces: int, type: str
) -> None:
    found = board(seed, pieces)
    question = ask_board(np.random.RandomState([12, seed]), found, type)
    if question is not None:
        assert question.answer == answer_of(question, found, SIDE)


def test_counts_go_far_and_their_thoughts_grow_with_them() -> None:
    found = [ask_board(np.random.RandomState([12, s]), board(s), "count") for s in range(300)]
    counts = Counter(int(question.answer) for question in found if question is not None)
    assert set(counts) == set(range(MOST_ALIKE + 1))
    assert sum(counts[number] for number in range(5, MOST_ALIKE + 1)) > 0.3 * sum(counts.values())
    for question in found:
        assert question is not None and question.thought is not None
        number = int(question.answer)
        assert len(question.thought.split()) == max(1, 4 * number - 1)


def test_squares_can_be_told_by_their_shade() -> None:
    picture = draw(board(1, FEWEST_PIECES), "test").astype(int)
    corners = picture[2::84, 2::84].mean(-1)
    dark = (np.arange(4)[:, None] + np.arange(4)) % 2 == 0
    assert corners[dark].max() < corners[~dark].min()
