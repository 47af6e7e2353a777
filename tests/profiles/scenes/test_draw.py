"""Pixels: the same for good, and of what the description says."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tightrope.errors import InputError
from tightrope.profiles.scenes.draw import SHAPE_FIELDS, draw
from tightrope.profiles.scenes.questions import QUESTIONS, ask
from tightrope.profiles.scenes.sample import LEVELS, SPLITS, sample_scene, scene_rng
from tightrope.profiles.scenes.scene import SIDE, Background, Level, Scene, Split, Thing
from tightrope.profiles.scenes.words import COLOURS, SHAPES

PIXELS = {
    ("train", "easy"): "64c92fae4ab728ed99dc6100229a534924aa9931f9a62c6620283d4dea234aaa",
    ("train", "medium"): "5626e169a4c6393c05b362ce95ab0cd0d9588eb83ea0e9effafd0e616b511fce",
    ("train", "hard"): "1a37f1fe376e8d37ac3d3de68d6b7dee0db1c00bf699546e543711f3f7be3cb3",
    ("dev", "hard"): "9052df0c960541ff13795e40f28675bbac297e5d7bef2e269485e190a3679814",
    ("test", "easy"): "0423e6a207310d69ddbc32b18b5cbca26526196aa349369eaba855e0d26cfcc4",
    ("test", "medium"): "559e419daf5c51da7f84da5a9351af2c34fa4897f28c66b3b0bc4a577f5b87b9",
    ("test", "hard"): "334e67e3ec61f2c85c1497fd9f51ec3cbb017e2364827c4d40de0b7bb244f6bc",
}
"""Of the first six scenes of seed 0 at 336, 224 and 168 pixels; a change makes a new data set."""
QUESTIONS_SHA256 = "b7182ec2ea177bb0c10c2b6f8d83e4c9ebc88d7b7df7f9df941392e6d80138e2"

MIDDLE: dict[str, Any] = {
    "kind": "object",
    "cell": 4,
    "x": 168,
    "y": 168,
    "width": 80,
    "height": 80,
}


def scene(split: Split, level: Level, index: int) -> Scene:
    return sample_scene(scene_rng(split, 0, index), split, level)


def alone(**what: Any) -> Scene:
    """A plain scene with one thing in the middle."""
    thing = Thing(**{**MIDDLE, **what})
    return Scene(things=(thing,), level="hard", background="plain", pixel_seed=5)


def empty(background: Background) -> npt.NDArray[np.uint8]:
    return draw(Scene(things=(), level="hard", background=background, pixel_seed=5), "test")


@pytest.mark.parametrize(("split", "level"), PIXELS)
def test_pixels_of_a_seed_never_change(split: Split, level: Level) -> None:
    digest = hashlib.sha256()
    for index in range(6):
        for pixels in (336, 224, 168):
            digest.update(draw(scene(split, level, index), split, pixels).tobytes())
    assert digest.hexdigest() == PIXELS[split, level]


def test_questions_of_a_seed_never_change() -> None:
    digest = hashlib.sha256()
    for split in SPLITS:
        for level in LEVELS:
            for index in range(20):
                rng = np.random.RandomState([10, SPLITS.index(split), 0, index])
                for type in QUESTIONS:
                    asked = ask(rng, scene(split, level, index), type)
                    said = asked and (asked.question, asked.thought, asked.answer, asked.earlier)
                    digest.update(repr(said).encode())
    assert digest.hexdigest() == QUESTIONS_SHA256


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_an_object_has_its_colour_inside_a_dark_outline(shape: str, colour: str) -> None:
    picture = draw(alone(shape=shape, colour=colour), "test").astype(int)
    # A ring's middle is open; its band is not.
    x = 168 + 28 if shape == "ring" else 168
    assert abs(picture[168, x] - COLOURS[colour]).max() <= 10
    changed = (picture != empty("plain")).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert min(rows.min(), columns.min()) >= 127 and max(rows.max(), columns.max()) <= 208
    left = columns[rows == 168].min()
    assert picture[168, left + 2].max() < 60


def test_stripes_run_across() -> None:
    picture = draw(alone(shape="square", colour="white", striped=True), "test").astype(int)
    column = picture[140:196, 168].sum(axis=1)
    assert (column > 650).any() and (column < 300).any()
    assert np.ptp(picture[168, 140:196], axis=0).max() == 0


@pytest.mark.parametrize("split", SPLITS)
def test_a_plate_shows_its_split_s_own_digit(split: Split) -> None:
    plate = alone(kind="plate", glyph=3, digit=0)
    pictures = [draw(plate, other) for other in SPLITS]
    assert sum((draw(plate, split) == picture).all() for picture in pictures) == 1


def test_a_word_is_there_to_be_read() -> None:
    fox, box = (
        draw(alone(kind="sign", word=word, width=84, height=44), "test") for word in ("fox", "box")
    )
    assert fox[147:190, 127:210].min() < 40 and fox[147:190, 127:210].max() > 220
    differing = np.nonzero((fox != box).any(axis=2))[1]
    # The words differ in the first of three letters.
    assert differing.max() < 127 + 84 // 2


@pytest.mark.parametrize("background", ["plain", "noisy", "cluttered"])
def test_backgrounds_leave_room_for_dark_and_light(background: Background) -> None:
    picture = empty(background)
    assert picture.min() >= 40 and picture.max() <= 221
    assert (len(np.unique(picture.reshape(-1, 3), axis=0)) == 1) == (background == "plain")


@pytest.mark.parametrize("shape", SHAPE_FIELDS)
def test_a_shape_stays_inside_its_box_and_fills_some_of_it(shape: str) -> None:
    at = np.linspace(-1.5, 1.5, 301)
    inside = SHAPE_FIELDS[shape](*np.meshgrid(at, at)) <= 0
    beyond = (abs(at) > 1 + 1e-9)[:, None] | (abs(at) > 1 + 1e-9)[None, :]
    assert not (inside & beyond).any()
    assert 0.2 < inside[~beyond].mean() < 0.85


@pytest.mark.parametrize("pixels", [13, 0, -336, 336.0, True, None])
def test_an_impossible_width_is_refused(pixels: object) -> None:
    with pytest.raises(InputError, match="14 or more"):
        draw(alone(shape="ring", colour="red"), "test", pixels)  # type: ignore[arg-type]


def test_smaller_pictures_show_the_same() -> None:
    whole = draw(scene("test", "easy", 0), "test", SIDE).astype(float)
    half = draw(scene("test", "easy", 0), "test", SIDE // 2).astype(float)
    shrunk = whole.reshape(168, 2, 168, 2, 3).mean(axis=(1, 3))
    assert abs(shrunk - half).mean() < 2
