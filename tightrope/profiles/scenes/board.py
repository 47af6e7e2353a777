"""Boards of 4 x 4 squares: more to count and to list than a scene has.

Squares are named as in chess, a 1 at the top left; counts go up to twelve, lists up to sixteen.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tightrope.profiles.scenes.questions import Question, ask
from tightrope.profiles.scenes.sample import centre, finished, object_at, object_size
from tightrope.profiles.scenes.scene import SIDE, Scene, Thing
from tightrope.profiles.scenes.words import BOARD, COLOURS, SHAPES

FEWEST_PIECES, MOST_PIECES = 4, BOARD * BOARD
MOST_ALIKE = 12
"""Of a shape, of a colour or with stripes: the largest count that has a word of its own."""
BOARD_TYPES = ("count", "comparison", "position", "list")
_TRIES = 20


def sample_board(rng: np.random.RandomState, pieces: int) -> Scene:
    """A board with at most `pieces` objects, any number of which share a shape or a colour."""
    count = int(max(rng.randint(FEWEST_PIECES, pieces + 1, 2)))
    squares = rng.permutation(BOARD * BOARD)[:count]
    by_shape = rng.randint(2) == 0
    values = tuple(SHAPES if by_shape else COLOURS)
    common = values[rng.randint(len(values))]
    alike = int(rng.randint(min(count, MOST_ALIKE) + 1))
    things: list[Thing] = []
    for number, square in enumerate(squares):
        for _ in range(_TRIES):
            thing = _piece(rng, int(square))
            if number < alike:
                thing = replace(thing, shape=common) if by_shape else replace(thing, colour=common)
            if not _too_many([*things, thing]):
                break
        things.append(thing)
    scene = finished(rng, "hard", things)
    order = sorted(scene.things, key=lambda thing: (thing.y * BOARD // SIDE, thing.x))
    return replace(scene, things=tuple(order), background="plain", board=True)


def ask_board(rng: np.random.RandomState, scene: Scene, type: str) -> Question | None:
    """A question of one of BOARD_TYPES, or None where the board has no room for it."""
    return ask(rng, scene, type)


def _piece(rng: np.random.RandomState, square: int) -> Thing:
    large = bool(rng.random_sample() < 0.5)
    size = object_size(rng, "hard", large)
    x, y = centre(rng, square, size, size, BOARD)
    return object_at(rng, size, large, x, y)


def _too_many(things: list[Thing]) -> bool:
    last = things[-1]
    return (
        sum(thing.shape == last.shape for thing in things) > MOST_ALIKE
        or sum(thing.colour == last.colour for thing in things) > MOST_ALIKE
        or sum(thing.striped for thing in things) > MOST_ALIKE
    )
