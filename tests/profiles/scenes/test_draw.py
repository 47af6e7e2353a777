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
    ("train", "easy"): "8c56043ba788e9e017f441ccc8c6caa79cde36eff6a9931dc72e99433fe2343b",
    ("train", "medium"): "200769f4cab23f02c92e1dd2a898965ce46be6629e59e30bf9bc1de5f8bad5d1",
    ("train", "hard"): "189c07510f6870f1ac56e0a7eeffcc720579f22cfb6dd0fa16d338b57faacd4c",
    ("dev", "hard"): "757a40d106118161750ffdb93e287723aa668be19e79f320840127f911a111c9",
    ("test", "easy"): "c02cd41caf088f1b010e2cbdeebfe058b50f758c7b1d0c8436c6a1f86b24a9a3",
    ("test", "medium"): "1b7ab0ccef5a6f8d8fb60835ca4612d9d478165bd79aaa7a6d13b1d011c12880",
    ("test", "hard"): "9a35961ce71511fbfe601b18c5711746f78941519e721b9c2dd1558528032ce8",
}
"""Of the first six scenes of seed 0 at 336, 224 and 168 pixels; a change makes a new data set."""
QUESTIONS_SHA256 = "7f9244ae69a0079bb6edc98faea611280c90dc6a9af0e35314b8e915d3b1f450"

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
    at = np.linspace(-1.5, 1.5, 3001)
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
