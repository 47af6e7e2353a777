"""Crowded pictures: many objects, none of them hidden, each question with one answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.profiles.scenes.crowded import (
    CLEAR,
    CROWDED_TYPES,
    FEWEST,
    MOST,
    OVERLAP,
    ask_crowded,
    sample_crowded,
)
from tightrope.profiles.scenes.draw import SHAPE_FIELDS, draw
from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.sample import scene_rng
from tightrope.profiles.scenes.scene import SIDE, Scene

Answer = Callable[[Question, Scene, int], str]
PIXELS = "dc0c02de5c6017ab4448c86e02dfacf87a60d4c9a997589ca99d054f019a5ef5"
"""Of the first two scenes of seed 0 with 20 objects."""
CLEARLY = 0.8
"""Of an object's area that nothing else covers."""

seeds, numbers = st.integers(0, 2**32 - 1), st.integers(FEWEST, MOST)


def scene(seed: int, objects: int) -> Scene:
    return sample_crowded(scene_rng("test", seed, 0), objects)


def test_pixels_of_a_seed_never_change() -> None:
    digest = hashlib.sha256()
    for index in range(2):
        found = sample_crowded(scene_rng("test", 0, index), 20)
        digest.update(draw(found, "test").tobytes())
    assert digest.hexdigest() == PIXELS


@given(seed=seeds, objects=numbers)
@settings(max_examples=30, deadline=None)
def test_there_are_as_many_as_asked_for_and_each_can_be_seen(seed: int, objects: int) -> None:
    found = scene(seed, objects)
    assert len(found.things) == len(found.objects) == objects
    at = np.arange(SIDE) + 0.5
    px, py = np.meshgrid(at, at)
    owner = np.full((SIDE, SIDE), -1)
    covers = []
    for index, thing in enumerate(found.things):
        radius = thing.width / 2
        field = SHAPE_FIELDS[thing.shape]((px - thing.x) / radius, (py - thing.y) / radius)
        covers.append(field <= 0)
        owner[covers[-1]] = index
    for index, (thing, cover) in enumerate(zip(found.things, covers, strict=True)):
        assert np.count_nonzero(owner == index) >= CLEARLY * np.count_nonzero(cover)
        assert min(thing.box) >= 0 and max(thing.box) <= SIDE
        lines = (SIDE / 3, 2 * SIDE / 3)
        assert all(abs(at - line) >= CLEAR for at in (thing.x, thing.y) for line in lines)
    assert found.background != "plain"


def test_some_reach_over_the_edge_of_another() -> None:
    def reach(found: Scene) -> list[float]:
        return [
            min((a.width + b.width) / 2 - abs(a.x - b.x), (a.width + b.width) / 2 - abs(a.y - b.y))
            for at, a in enumerate(found.things)
            for b in found.things[:at]
        ]

    overlaps = [overlap for seed in range(10) for overlap in reach(scene(seed, 30)) if overlap > 0]
    assert overlaps and max(overlaps) <= OVERLAP


@given(seed=seeds, objects=numbers, type=st.sampled_from(CROWDED_TYPES))
@settings(max_examples=60, deadline=None)
def test_every_question_has_one_answer(
    answer_of: Answer, seed: int, objects: int, type: str
) -> None:
    found = scene(seed, objects)
    question = ask_crowded(np.random.RandomState([12, seed]), found, type)
    if question is not None:
        assert question.answer == answer_of(question, found, SIDE)
        assert question.about


@pytest.mark.parametrize("type", CROWDED_TYPES)
def test_every_type_comes_up(type: str) -> None:
    asked = [
        ask_crowded(np.random.RandomState([12, seed]), scene(seed, 24), type) for seed in range(30)
    ]
    assert sum(question is not None for question in asked) >= 15


def test_most_objects_are_distractors_that_share_a_word_with_the_question() -> None:
    shares = []
    for seed in range(40):
        found = scene(seed, 24)
        question = ask_crowded(np.random.RandomState([12, seed]), found, "colour")
        if question is not None:
            (index,) = question.about
            named = found.things[index]
            alike = [
                thing
                for thing in found.things
                if thing is not named
                and (thing.shape in question.question or thing.striped == named.striped)
            ]
            shares.append(len(alike) / len(found.things))
    assert np.mean(shares) > 0.5
