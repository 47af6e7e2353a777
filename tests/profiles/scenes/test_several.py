"""Several pictures, of which what is asked about stands in one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.sample import scene_rng
from tightrope.profiles.scenes.scene import SIDE, Scene
from tightrope.profiles.scenes.several import (
    FEWEST_PICTURES,
    MOST_PICTURES,
    SEVERAL_TYPES,
    ask_several,
    sample_several,
    together,
)

Answer = Callable[[Question, Scene, int], str]
seeds, counts = st.integers(0, 2**32 - 1), st.integers(FEWEST_PICTURES, MOST_PICTURES)


def scenes(seed: int, pictures: int) -> tuple[Scene, ...]:
    return sample_several(scene_rng("test", seed, 0), "test", pictures)


@given(seed=seeds, pictures=counts, type=st.sampled_from(SEVERAL_TYPES))
@settings(max_examples=80, deadline=None)
def test_every_question_has_one_answer_over_all_pictures(
    answer_of: Answer, seed: int, pictures: int, type: str
) -> None:
    found = scenes(seed, pictures)
    assert len(found) == pictures
    question = ask_several(np.random.RandomState([12, seed]), found, type)
    if question is None:
        assert type in ("colour", "shape", "position")
        return
    assert question.answer == answer_of(question, together(found), SIDE)
    if type != "existence":
        owners = [at for at, scene in enumerate(found) for _ in scene.boxes]
        assert len({owners[at] for at in question.about}) == 1


@pytest.mark.parametrize("pictures", [FEWEST_PICTURES, MOST_PICTURES])
def test_any_of_the_pictures_may_be_the_one_that_matters(pictures: int) -> None:
    mattering = set()
    for seed in range(60):
        found = scenes(seed, pictures)
        question = ask_several(np.random.RandomState([12, seed]), found, "digit")
        assert question is not None
        owners = [at for at, scene in enumerate(found) for _ in scene.boxes]
        mattering.add(owners[question.about[0]])
    assert mattering == set(range(pictures))
