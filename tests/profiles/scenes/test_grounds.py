"""Backgrounds that are asked about: textures, brightness, and the one place without an object."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.profiles.scenes.draw import draw
from tightrope.profiles.scenes.grounds import (
    FAINTEST,
    GROUND_TYPES,
    STRONGEST,
    ask_grounds,
    sample_grounds,
)
from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.sample import scene_rng
from tightrope.profiles.scenes.scene import SIDE, Scene

Answer = Callable[[Question, Scene, int], str]
seeds, contrasts = st.integers(0, 2**32 - 1), st.integers(FAINTEST, STRONGEST)


def scene(seed: int, contrast: int = 16) -> Scene:
    return sample_grounds(scene_rng("test", seed, 0), contrast)


@given(seed=seeds, contrast=contrasts, type=st.sampled_from(list(GROUND_TYPES)))
@settings(max_examples=60, deadline=None)
def test_every_question_has_one_answer_and_says_where_it_lies(
    answer_of: Answer, seed: int, contrast: int, type: str
) -> None:
    found = scene(seed, contrast)
    question = ask_grounds(np.random.RandomState([12, seed]), found, type)
    if question is None:
        assert type == "empty" and len(found.things) != 8
        return
    assert question.answer == answer_of(question, found, SIDE)
    (about,) = question.about
    ground = found.grounds[about - len(found.things)]
    assert found.boxes[about] == ground.box
    assert question.answer in (ground.texture, ground.light) or type == "empty"


@pytest.mark.parametrize("pixels", [336, 224, 168])
@pytest.mark.parametrize("contrast", [FAINTEST, STRONGEST])
def test_pixels_show_what_is_told_of_them(pixels: int, contrast: int) -> None:
    for seed in range(6):
        found = scene(seed, contrast)
        bare = Scene(
            things=(),
            level="hard",
            background="cluttered",
            pixel_seed=found.pixel_seed,
            grounds=found.grounds,
        )
        grey = draw(bare, "test", pixels).astype(float).mean(-1)
        for ground in found.grounds:
            left, top, right, bottom = (edge * pixels / SIDE for edge in ground.box)
            part = grey[int(top) + 1 : int(bottom) - 1, int(left) + 1 : int(right) - 1]
            assert (part.mean() > 128) == (ground.light == "bright")
            along, across = part.std(1).mean(), part.mean(1).std()
            shown = "noisy" if along > 1 else "lined" if across > 1 else "plain"
            assert shown == ground.texture


@pytest.mark.parametrize("type", GROUND_TYPES)
def test_answers_are_balanced(type: str) -> None:
    asked = (ask_grounds(np.random.RandomState([12, s]), scene(s), type) for s in range(300))
    answers = [question.answer for question in asked if question is not None]
    assert len(answers) >= 100
    different = {"texture": 3, "brightness": 2, "empty": 9}[type]
    counts = [answers.count(answer) for answer in set(answers)]
    assert len(counts) == different
    assert max(counts) < 1.7 * len(answers) / different
