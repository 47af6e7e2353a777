"""Fine print: as high as asked for, beside large shapes, with digits that can be told apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.profiles.scenes.draw import draw
from tightrope.profiles.scenes.fine import FINE_TYPES, LARGEST, SMALLEST, sample_fine
from tightrope.profiles.scenes.glyphs import word_bitmap
from tightrope.profiles.scenes.questions import Question, ask
from tightrope.profiles.scenes.sample import scene_rng
from tightrope.profiles.scenes.scene import SIDE, Scene

Answer = Callable[[Question, Scene, int], str]
seeds, heights = st.integers(0, 2**32 - 1), st.integers(SMALLEST, LARGEST)


def scene(seed: int, height: int) -> Scene:
    return sample_fine(scene_rng("test", seed, 0), height)


@given(seed=seeds, height=heights)
@settings(max_examples=40, deadline=None)
def test_print_is_as_high_as_asked_for_and_shapes_are_large(seed: int, height: int) -> None:
    found = scene(seed, height)
    kinds = [thing.kind for thing in found.things]
    assert kinds.count("sign") == 1 and 1 <= kinds.count("plate") <= 3
    assert 2 <= kinds.count("object") <= 4
    for thing in found.things:
        if thing.kind == "object":
            assert 84 <= thing.width <= 96
        else:
            # Seven of eleven rows of a sign are letters.
            assert abs(thing.height * 7 / 11 - height) <= 0.5
    assert len({thing.cell for thing in found.things}) == len(found.things)


@given(seed=seeds, height=heights, type=st.sampled_from(FINE_TYPES))
@settings(max_examples=60, deadline=None)
def test_every_question_has_one_answer(
    answer_of: Answer, seed: int, height: int, type: str
) -> None:
    found = scene(seed, height)
    question = ask(np.random.RandomState([12, seed]), found, type)
    assert question is not None or type in ("colour", "shape")
    if question is not None:
        assert question.answer == answer_of(question, found, SIDE)


def test_printed_digits_look_different() -> None:
    assert len({word_bitmap(str(digit)).tobytes() for digit in range(10)}) == 10


@pytest.mark.parametrize("height", [SMALLEST, LARGEST])
def test_at_the_full_size_strokes_are_darker_than_the_paper(height: int) -> None:
    found = scene(3, height)
    picture = draw(found, "test").astype(int)
    (sign,) = (thing for thing in found.things if thing.kind == "sign")
    left, top, right, bottom = (round(edge) for edge in sign.box)
    grey = picture[top:bottom, left:right].mean(-1)
    ink = word_bitmap(sign.word)
    rows = ((np.arange(11) + 0.5) * sign.height / 11).astype(int)
    columns = ((np.arange(ink.shape[1]) + 0.5) * sign.width / ink.shape[1]).astype(int)
    shown = grey[np.minimum(rows, len(grey) - 1)][:, np.minimum(columns, len(grey[0]) - 1)]
    assert shown[ink == 1].mean() + 60 < shown[ink == 0].mean()
