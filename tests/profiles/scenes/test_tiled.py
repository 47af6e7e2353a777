"""Large pictures: things of the usual size, places of the whole, one right answer."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import InputError
from tightrope.profiles.scenes.draw import draw
from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.sample import sample_scene, scene_rng
from tightrope.profiles.scenes.scene import SIDE, Level, Scene
from tightrope.profiles.scenes.tiled import (
    MOST_OF_A_KIND,
    TILED_LEVELS,
    TILED_SIDES,
    TILED_TYPES,
    ask_tiled,
    draw_tiled,
    sample_tiled,
)

Answer = Callable[[Question, Scene, int], str]

PIXELS = {
    672: "9e226a66336344b69d1bf1ce3d989c419f99bbd884c09aacc35caec95cc4cbc5",
    1008: "502ccdf1b92ce9fa7db097ff545ad0c34e8670d6c577131a25fd998172532f66",
}
"""Of the first two large scenes of seed 0."""

seeds, levels = st.integers(0, 2**32 - 1), st.sampled_from(TILED_LEVELS)
sides = st.sampled_from(TILED_SIDES)


def scene(seed: int, level: Level, side: int) -> Scene:
    return sample_tiled(scene_rng("test", seed, 0), "test", level, side)


@pytest.mark.parametrize("side", TILED_SIDES)
def test_pixels_of_a_seed_never_change(side: int) -> None:
    digest = hashlib.sha256()
    for index in range(2):
        found = sample_tiled(scene_rng("test", 0, index), "test", "hard", side)
        picture = draw_tiled(found, "test", side)
        assert picture.shape == (side, side, 3) and picture.dtype == np.uint8
        digest.update(picture.tobytes())
    assert digest.hexdigest() == PIXELS[side]


@given(seed=seeds, level=levels, side=sides)
@settings(max_examples=40, deadline=None)
def test_things_lie_in_their_ninth_of_the_whole_and_apart(
    seed: int, level: Level, side: int
) -> None:
    found = scene(seed, level, side)
    for thing in found.things:
        row, column = divmod(thing.cell, 3)
        left, top, right, bottom = thing.box
        assert column * side / 3 < left < right < (column + 1) * side / 3
        assert row * side / 3 < top < bottom < (row + 1) * side / 3
        assert max(thing.width, thing.height) <= {"hard": 44, "medium": 66}[level]
    for one, other in combinations(found.things, 2):
        apart_across = one.box[2] < other.box[0] or other.box[2] < one.box[0]
        assert apart_across or one.box[3] < other.box[1] or other.box[3] < one.box[1]


@given(seed=seeds, level=levels, side=sides)
@settings(max_examples=40, deadline=None)
def test_there_are_enough_things_and_no_more_than_nine_of_a_kind(
    seed: int, level: Level, side: int
) -> None:
    found = scene(seed, level, side)
    assert len(found.objects) >= 6
    for attribute in ("shape", "colour"):
        numbers = Counter(getattr(thing, attribute) for thing in found.objects)
        assert max(numbers.values()) <= MOST_OF_A_KIND
    assert sum(thing.striped for thing in found.objects) <= MOST_OF_A_KIND
    kinds = Counter(thing.kind for thing in found.things)
    assert kinds["sign"] <= 1 and kinds["plate"] <= 2
    plates = [thing.cell for thing in found.things if thing.kind == "plate"]
    assert len(set(plates)) == len(plates)


@given(seed=seeds, level=levels, side=sides, type=st.sampled_from(TILED_TYPES))
@settings(max_examples=40, deadline=None)
def test_every_question_has_one_answer_over_the_whole_picture(
    answer_of: Answer, seed: int, level: Level, side: int, type: str
) -> None:
    found = scene(seed, level, side)
    question = ask_tiled(np.random.RandomState([12, seed]), found, type)
    if question is not None:
        assert question.answer == answer_of(question, found, side)


@pytest.mark.parametrize("type", TILED_TYPES)
def test_every_type_comes_up(type: str) -> None:
    asked = [
        ask_tiled(np.random.RandomState([12, seed]), scene(seed, "hard", 1008), type)
        for seed in range(40)
    ]
    assert sum(question is not None for question in asked) >= 30


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_an_object_looks_as_it_does_in_a_small_picture(seed: int) -> None:
    """The same thing at the same place of its tile covers the same pixels."""
    small = sample_scene(scene_rng("test", seed, 0), "test", "hard")
    plain = {"level": "hard", "background": "plain", "pixel_seed": 3}
    things = small.objects[:1]
    little = Scene(things=things, **plain)  # type: ignore[arg-type]
    tile = draw_tiled(little, "test", 672)[:SIDE, :SIDE]
    np.testing.assert_array_equal(tile, draw(little, "test", SIDE))


@pytest.mark.parametrize("side", [336, 1344, 672.5, "672", None])
def test_another_side_is_refused(side: object) -> None:
    with pytest.raises(InputError, match="672, 1008"):
        sample_tiled(scene_rng("test", 0, 0), "test", "hard", side)  # type: ignore[arg-type]


def test_an_easy_large_scene_is_refused() -> None:
    with pytest.raises(InputError, match="medium, hard"):
        sample_tiled(scene_rng("test", 0, 0), "test", "easy", 672)
