"""What each patch of a picture shows: targets for the tower, and tokens for a blind decoder."""

from __future__ import annotations

import numpy as np

from models.training.architecture import PATCH
from tightrope.arrays import Floats, Indices
from tightrope.profiles.scenes.scene import SIDE, Scene, Thing
from tightrope.profiles.scenes.words import COLOURS, COLUMNS, ROWS, SHAPES, SIGN_WORDS

KINDS = (*SHAPES, "plate", "sign", "background")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "colour": (*COLOURS, ""),
    "texture": ("plain", "striped", ""),
    "size": ("small", "large", ""),
    "digit": (*map(str, range(10)), ""),
    "word": (*SIGN_WORDS, ""),
    "row": ROWS,
    "column": COLUMNS,
}
"""Values of each attribute of a patch; the empty one says that it has none."""

_OFFSETS = np.cumsum([0, *map(len, ATTRIBUTES.values())])
NUM_VALUES = int(_OFFSETS[-1])


def patch_labels(scene: Scene, pixels: int) -> tuple[Indices, Indices]:
    """Values of every attribute [n*n,8], and which thing each patch shows [n*n] (-1: none).

    A patch shows the thing that covers most of it, if that is a sixth of the patch or of the thing.
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
    cells = np.arange(side) * 3 // side
    values = np.empty((side * side, len(ATTRIBUTES)), np.int64)
    for column, (row_cell, column_cell) in enumerate(np.ndindex(side, side)):
        values[column] = (*_BLANK, cells[row_cell], cells[column_cell])
    for index, thing in enumerate(scene.things):
        values[owner == index] = _values(thing)
    return values, owner


_BLANK = tuple(len(names) - 1 for names in list(ATTRIBUTES.values())[:6])


def _values(thing: Thing) -> tuple[int, ...]:
    shown = {
        "kind": thing.shape or thing.kind,
        "colour": thing.colour,
        "texture": "" if thing.kind != "object" else "striped" if thing.striped else "plain",
        "size": "" if thing.kind != "object" else "large" if thing.large else "small",
        "digit": "" if thing.digit < 0 else str(thing.digit),
        "word": thing.word,
        "row": ROWS[thing.cell // 3],
        "column": COLUMNS[thing.cell % 3],
    }
    return tuple(ATTRIBUTES[name].index(value) for name, value in shown.items())


def one_hot(values: Indices) -> Floats:
    """[n,8] values as [n,NUM_VALUES] zeros and ones."""
    hot = np.zeros((len(values), NUM_VALUES), np.float32)
    np.put_along_axis(hot, values + _OFFSETS[:-1], 1.0, axis=1)
    return hot


def value_names() -> list[str]:
    return [name for names in ATTRIBUTES.values() for name in names]
