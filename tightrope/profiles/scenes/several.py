"""Several pictures of which one matters: a question names something that one of them shows."""

from __future__ import annotations

import numpy as np

from tightrope.profiles.scenes.questions import Question, ask, where
from tightrope.profiles.scenes.sample import finished, objects_in, plate, sign
from tightrope.profiles.scenes.scene import Scene, Split, Thing

FEWEST_PICTURES, MOST_PICTURES = 2, 4
SEVERAL_TYPES = ("colour", "shape", "existence", "position", "digit", "word")


def sample_several(rng: np.random.RandomState, split: Split, pictures: int) -> tuple[Scene, ...]:
    """Pictures with two to four objects each; one has a plate with a digit, one a sign."""
    plated, signed = (int(at) for at in rng.randint(pictures, size=2))
    scenes = []
    for at in range(pictures):
        cells = [int(cell) for cell in rng.permutation(9)]
        things: list[Thing] = []
        if at == plated:
            things.append(plate(rng, split, "hard", cells.pop()))
        if at == signed:
            things.append(sign(rng, "hard", cells.pop()))
        count = 2 + int(rng.randint(3))
        scenes.append(finished(rng, "hard", [*things, *objects_in(rng, "hard", cells[:count])]))
    return tuple(scenes)


def together(scenes: tuple[Scene, ...]) -> Scene:
    """All things of all pictures as those of one: what names one of them names it among all."""
    first = scenes[0]
    return Scene(
        things=tuple(thing for scene in scenes for thing in scene.things),
        level=first.level,
        background=first.background,
        pixel_seed=first.pixel_seed,
    )


def ask_several(
    rng: np.random.RandomState, scenes: tuple[Scene, ...], type: str
) -> Question | None:
    """A question of one of SEVERAL_TYPES; `about` counts the things of all pictures through."""
    scene = together(scenes)
    # Each picture has a place of every name, so that what is there has more than one answer.
    return where(rng, scene) if type == "position" else ask(rng, scene, type)
