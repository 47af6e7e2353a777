"""A scene from a seed.

Random numbers come from NumPy's legacy generator, whose streams are frozen for good: the same
seed gives the same scene on every machine and with every version.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tightrope.checks import check_one_of, check_whole
from tightrope.profiles.scenes.glyphs import digit_glyphs, sign_size
from tightrope.profiles.scenes.scene import SIDE, Background, Level, Scene, Split, Thing
from tightrope.profiles.scenes.words import COLOURS, SHAPES, SIGN_WORDS

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
LEVELS: tuple[Level, ...] = ("easy", "medium", "hard")
BACKGROUNDS: tuple[Background, ...] = ("plain", "noisy", "cluttered")
MAX_SEED = 2**32 - 1

# Sides in units, from and to: small objects, large objects, plates.
_SIZES: dict[Level, tuple[tuple[int, int], ...]] = {
    "hard": ((24, 30), (38, 44), (40, 44)),
    "medium": ((36, 46), (58, 66), (56, 64)),
    "easy": ((56, 68), (84, 96), (80, 92)),
}
_LETTER_SCALES: dict[Level, int] = {"hard": 2, "medium": 3, "easy": 4}


def scene_rng(split: Split, seed: int, index: int) -> np.random.RandomState:
    """The random stream of scene `index` of a split; raises InputError for a seed out of range."""
    check_one_of("split", split, SPLITS)
    check_whole("seed", seed, least=0, most=MAX_SEED)
    return np.random.RandomState([SPLITS.index(split), seed, index])


def sample_scene(rng: np.random.RandomState, split: Split, level: Level) -> Scene:
    """A scene of 2 to 8 objects, at most one thing in each cell of a 3 x 3 arrangement."""
    cells = [int(cell) for cell in rng.permutation(9)]
    things = []
    if rng.random_sample() < 0.5:
        things += [plate(rng, split, level, cells.pop()) for _ in range(1 + rng.randint(2))]
    if rng.random_sample() < 0.45:
        things.append(sign(rng, level, cells.pop()))
    count = 2 + rng.randint(min(8, len(cells)) - 1)
    things += objects_in(rng, level, cells[:count])
    return finished(rng, level, things)


def sample_written(rng: np.random.RandomState, split: Split, level: Level) -> Scene:
    """A scene with a plate or a sign in every cell: nine things to read in one picture."""
    things = [
        plate(rng, split, level, cell) if rng.random_sample() < 0.5 else sign(rng, level, cell)
        for cell in range(9)
    ]
    return finished(rng, level, things)


def finished(rng: np.random.RandomState, level: Level, things: Iterable[Thing]) -> Scene:
    """Things as a scene, in reading order, on a background that is drawn here."""
    return Scene(
        things=tuple(sorted(things, key=lambda thing: (thing.cell, thing.y, thing.x))),
        level=level,
        background=BACKGROUNDS[rng.randint(len(BACKGROUNDS))],
        pixel_seed=int(rng.randint(2**31 - 1)),
    )


def objects_in(rng: np.random.RandomState, level: Level, cells: list[int]) -> list[Thing]:
    """Objects that share attributes often enough for large counts and hard questions."""
    shapes, colours = list(SHAPES), list(COLOURS)
    common_shape, common_colour = shapes[rng.randint(6)], colours[rng.randint(8)]
    shared_shape, shared_colour = ((0.0, 0.0), (0.75, 0.1), (0.1, 0.75), (0.4, 0.4))[rng.randint(4)]
    objects = []
    for cell in cells:
        shape = common_shape if rng.random_sample() < shared_shape else shapes[rng.randint(6)]
        colour = common_colour if rng.random_sample() < shared_colour else colours[rng.randint(8)]
        large = bool(rng.random_sample() < 0.5)
        size = object_size(rng, level, large)
        x, y = centre(rng, cell, size, size)
        objects.append(
            Thing(
                kind="object",
                cell=cell,
                x=x,
                y=y,
                width=size,
                height=size,
                shape=shape,
                colour=colour,
                large=large,
                striped=bool(rng.random_sample() < 0.3),
            )
        )
    return objects


def object_at(rng: np.random.RandomState, size: int, large: bool, x: int, y: int) -> Thing:
    """An object of any shape and colour, three in ten with stripes, centred at x and y units."""
    return Thing(
        kind="object",
        cell=y * 3 // SIDE * 3 + x * 3 // SIDE,
        x=x,
        y=y,
        width=size,
        height=size,
        shape=list(SHAPES)[rng.randint(len(SHAPES))],
        colour=list(COLOURS)[rng.randint(len(COLOURS))],
        large=large,
        striped=bool(rng.random_sample() < 0.3),
    )


def object_size(rng: np.random.RandomState, level: Level, large: bool) -> int:
    """Side in units of a small or large object of a level."""
    low, high = _SIZES[level][1 if large else 0]
    return int(rng.randint(low, high + 1))


def plate(rng: np.random.RandomState, split: Split, level: Level, cell: int) -> Thing:
    """A plate with one of the split's handwritten digits."""
    labels = digit_glyphs(split)[1]
    low, high = _SIZES[level][2]
    size = int(rng.randint(low, high + 1))
    digit = int(rng.randint(10))
    pool = np.flatnonzero(labels == digit)
    pick = int(pool[rng.randint(len(pool))])
    x, y = centre(rng, cell, size, size)
    return Thing(
        kind="plate", cell=cell, x=x, y=y, width=size, height=size, digit=digit, glyph=pick
    )


def sign(rng: np.random.RandomState, level: Level, cell: int) -> Thing:
    """A sign with a word."""
    word = SIGN_WORDS[rng.randint(len(SIGN_WORDS))]
    width, height = sign_size(word, _LETTER_SCALES[level])
    x, y = centre(rng, cell, width, height)
    return Thing(kind="sign", cell=cell, x=x, y=y, width=width, height=height, word=word)


def centre(
    rng: np.random.RandomState, cell: int, width: int, height: int, across: int = 3
) -> tuple[int, int]:
    """A centre in a cell of `across` in a row such that the thing ends two units from its edge."""
    edge = SIDE // across
    row, column = divmod(cell, across)
    x = rng.randint(column * edge + width // 2 + 2, (column + 1) * edge - width // 2 - 1)
    y = rng.randint(row * edge + height // 2 + 2, (row + 1) * edge - height // 2 - 1)
    return int(x), int(y)
