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
    ("train", "easy"): "51cc107efc6ff2622722e73465be6d6bb9ec27388a8b8043709dcf62e750d026",
    ("train", "medium"): "2b8250ea7620b10efd2f22853ad3b9fc3e4675efda1f9fc80a3907b9b29f58de",
    ("train", "hard"): "1578e4ff1ac1fa2a7695d64d7e72845a2f2548045c2daa78a868072da22fffdd",
    ("dev", "hard"): "304484e8ebce23694ff6e476676852ac5a696b09c76555ae90a78f820e70943a",
    ("test", "easy"): "61e558df4c8e2534f3eb3d9b885c86dc0744d65dc18b1f56e101e8c07a03c712",
    ("test", "medium"): "55d0ce112d865656638f2a9e7f66aeb9ad85ce7d42cf4dfa92da7e8abfbdf100",
    ("test", "hard"): "b45fc3e5b3bca290b131bf75d1c65e77baf2d956f1efcd0373cb6d79243b6763",
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
