"""Pictures larger than a tower takes at once: small things far apart on one background.

A large scene is 2 x 2 or 3 x 3 ordinary scenes side by side, thinned out until a question over the
whole has one answer. Scaled down to an ordinary size, its things are too small to tell apart: it is
for methods that look at parts of a picture.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tightrope.arrays import Pixels
from tightrope.checks import check_one_of
from tightrope.profiles.scenes.draw import render
from tightrope.profiles.scenes.questions import Question, ask, stripes
from tightrope.profiles.scenes.sample import finished, sample_scene
from tightrope.profiles.scenes.scene import SIDE, Level, Scene, Split, Thing

TILED_SIDES = (2 * SIDE, 3 * SIDE)
TILED_LEVELS: tuple[Level, ...] = ("medium", "hard")
TILED_TYPES = ("colour", "shape", "existence", "count", "position", "digit", "word", "stripes")
MOST_OF_A_KIND = 9
"""So that a count is one digit."""
_TRIES = 8


def sample_tiled(rng: np.random.RandomState, split: Split, level: Level, side: int) -> Scene:
    """A scene `side` units wide, with each thing inside one of its nine cells.

    About two objects for each tile, at most one sign, and at most two plates in cells of their
    own. Raises InputError for a side or a level that large scenes do not have.
    """
    check_one_of("side of a tiled scene", side, TILED_SIDES)
    check_one_of("level of a tiled scene", level, TILED_LEVELS)
    tiles = side // SIDE
    found = []
    for row, column in np.ndindex(tiles, tiles):
        for thing in sample_scene(rng, split, level).things:
            x, y = thing.x + column * SIDE, thing.y + row * SIDE
            # Things lie in cells of a third of a tile, which never cross a third of the whole.
            cell = y * 3 // side * 3 + x * 3 // side
            found.append(replace(thing, x=x, y=y, cell=cell))
    most = 2 + int(rng.randint(tiles * tiles, 3 * tiles * tiles))
    kept: list[Thing] = []
    for at in rng.permutation(len(found)):
        if _has_room(kept, found[at], most):
            kept.append(found[at])
    return finished(rng, level, kept)


def draw_tiled(scene: Scene, split: Split, side: int) -> Pixels:
    """The picture of a scene that is `side` units wide: uint8 [side, side, 3]."""
    return render(scene, split, side, side)


def ask_tiled(rng: np.random.RandomState, scene: Scene, type: str) -> Question | None:
    """A question of one of TILED_TYPES, or None where the scene has no room for it."""
    if type == "stripes":
        return stripes(rng, scene)
    for _ in range(_TRIES):
        question = ask(rng, scene, type)
        # A cell may hold several things, so that what is there has more than one answer.
        if question is None or not question.question.startswith("what is at"):
            return question
        cell = scene.things[question.about[0]].cell
        if sum(thing.cell == cell for thing in scene.things) == 1:
            return question
    return None


def _has_room(kept: list[Thing], thing: Thing, most: int) -> bool:
    alike = [other for other in kept if other.kind == thing.kind]
    if thing.kind == "sign":
        return not alike
    if thing.kind == "plate":
        return len(alike) < 2 and all(other.cell != thing.cell for other in alike)
    if len(alike) == most:
        return False
    return (
        sum(other.shape == thing.shape for other in alike) < MOST_OF_A_KIND
        and sum(other.colour == thing.colour for other in alike) < MOST_OF_A_KIND
        and sum(other.striped for other in alike) < MOST_OF_A_KIND
    )
