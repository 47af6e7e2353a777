"""What each patch of a picture shows: targets for the tower, and tokens for a blind decoder."""

from __future__ import annotations

import numpy as np

from models.training.architecture import PATCH
from tightrope.arrays import Floats, Indices
from tightrope.profiles.scenes.scene import SIDE, Ground, Scene, Thing
from tightrope.profiles.scenes.words import (
    BOARD,
    COLOURS,
    COLUMNS,
    LIGHTS,
    ROWS,
    SHAPES,
    SIGN_WORDS,
    TEXTURES,
)

KINDS = (*SHAPES, "plate", "sign", "background")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "colour": (*COLOURS, ""),
    "texture": ("plain", "striped", ""),
    "size": ("small", "large", ""),
    "digit": (*map(str, range(10)), ""),
    "word": (*SIGN_WORDS, ""),
    "ground": (*TEXTURES, ""),
    "light": (*LIGHTS, ""),
    "vacancy": ("empty", "taken", ""),
    "row": ROWS,
    "column": COLUMNS,
    "file": tuple("abcd"),
    "rank": tuple("1234"),
}
"""Values of each attribute of a patch; the empty one says that it has none."""
PLACES = ("row", "column", "file", "rank")
"""Attributes that every patch has, whatever it shows."""

_OFFSETS = np.cumsum([0, *map(len, ATTRIBUTES.values())])
NUM_VALUES = int(_OFFSETS[-1])


def patch_labels(scene: Scene, pixels: int) -> tuple[Indices, Indices]:
    """Values of each patch's attributes [n*n,A], and which of `scene.boxes` it shows [n*n] or -1.

    A patch shows the thing that covers most of it, if that is a sixth of the patch or of the thing;
    else the ground that it lies on, if the scene has grounds.
    """
    side = pixels // PATCH
    edge = SIDE / side
    cover = np.zeros((side * side, len(scene.things)))
    for index, thing in enumerate(scene.things):
        left, top, right, bottom = thing.box
        starts = np.arange(side) * edge
        across = np.clip(np.minimum(starts + edge, right) - np.maximum(starts, left), 0, None)
        down = np.clip(np.minimum(starts + edge, bottom) - np.maximum(starts, top), 0, None)
        area = (down[:, None] * across[None, :]).reshape(-1)
        area[area < min(edge * edge, thing.width * thing.height) / 6] = 0
        cover[:, index] = area
    owner = np.where(cover.max(1) > 0, cover.argmax(1), -1)
    ninths, squares = np.arange(side) * 3 // side, np.arange(side) * BOARD // side
    values = np.empty((side * side, len(ATTRIBUTES)), np.int64)
    for patch, (row, column) in enumerate(np.ndindex(side, side)):
        values[patch] = (*_BLANK, ninths[row], ninths[column], squares[column], squares[row])
        cell = ninths[row] * 3 + ninths[column]
        if scene.grounds and owner[patch] < 0:
            owner[patch] = len(scene.things) + cell
            values[patch, _GROUND] = _ground(scene, scene.grounds[cell])
    for index, thing in enumerate(scene.things):
        here = owner == index
        values[here] = np.where(_IS_PLACE, values[here], _values(thing))
        # A thing has one place, though some of its patches lie beyond a line.
        row_and_column = (thing.cell // 3, thing.cell % 3)
        values[np.ix_(here, _NINTH)] = row_and_column
        values[np.ix_(here, _SQUARE)] = (thing.x * BOARD // SIDE, thing.y * BOARD // SIDE)
    return values, owner


_NAMES = list(ATTRIBUTES)
_BLANK = tuple(len(names) - 1 for name, names in ATTRIBUTES.items() if name not in PLACES)
_IS_PLACE = np.array([name in PLACES for name in _NAMES])
_GROUND = [_NAMES.index(name) for name in ("ground", "light", "vacancy")]
_NINTH = [_NAMES.index(name) for name in ("row", "column")]
_SQUARE = [_NAMES.index(name) for name in ("file", "rank")]


def _ground(scene: Scene, ground: Ground) -> tuple[int, ...]:
    taken = any(thing.cell == ground.cell for thing in scene.things)
    shown = (ground.texture, ground.light, "taken" if taken else "empty")
    return tuple(
        ATTRIBUTES[_NAMES[at]].index(value) for at, value in zip(_GROUND, shown, strict=True)
    )


def _values(thing: Thing) -> tuple[int, ...]:
    shown = {
        "kind": thing.shape or thing.kind,
        "colour": thing.colour,
        "texture": "" if thing.kind != "object" else "striped" if thing.striped else "plain",
        "size": "" if thing.kind != "object" else "large" if thing.large else "small",
        "digit": "" if thing.digit < 0 else str(thing.digit),
        "word": thing.word,
    }
    return tuple(
        0 if name in PLACES else names.index(shown.get(name, ""))
        for name, names in ATTRIBUTES.items()
    )


def one_hot(values: Indices) -> Floats:
    """[n,A] values as [n,NUM_VALUES] zeros and ones."""
    hot = np.zeros((len(values), NUM_VALUES), np.float32)
    np.put_along_axis(hot, values + _OFFSETS[:-1], 1.0, axis=1)
    return hot


def value_names() -> list[str]:
    return [name for names in ATTRIBUTES.values() for name in names]
