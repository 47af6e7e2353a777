"""Pictures whose background is asked about: its texture, its brightness, and where nothing stands.

Whatever stands out from its surroundings says nothing about these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.sample import finished, objects_in
from tightrope.profiles.scenes.scene import Ground, Scene
from tightrope.profiles.scenes.words import LIGHTS, TEXTURES, place

FAINTEST, STRONGEST = 6, 40
"""Contrast of a texture, in grey levels from its mean."""


def sample_grounds(rng: np.random.RandomState, contrast: int) -> Scene:
    """Nine grounds side by side with objects on three to six of them, or on all but one."""
    cells = [int(cell) for cell in rng.permutation(9)]
    count = 8 if rng.random_sample() < 0.5 else 3 + rng.randint(4)
    grounds = tuple(
        Ground(
            cell=cell,
            texture=TEXTURES[rng.randint(len(TEXTURES))],
            light=LIGHTS[rng.randint(len(LIGHTS))],
            contrast=contrast,
        )
        for cell in range(9)
    )
    return replace(finished(rng, "hard", objects_in(rng, "hard", cells[:count])), grounds=grounds)


def ask_grounds(rng: np.random.RandomState, scene: Scene, type: str) -> Question | None:
    """A question of one of GROUND_TYPES, or None where the scene has no room for it."""
    return GROUND_TYPES[type](rng, scene)


def _texture(rng: np.random.RandomState, scene: Scene) -> Question | None:
    ground = scene.grounds[rng.randint(9)]
    question = f"what texture is at the {place(ground.cell)} ?"
    return _asked(scene, "texture", question, ground.texture, ground.cell)


def _brightness(rng: np.random.RandomState, scene: Scene) -> Question | None:
    ground = scene.grounds[rng.randint(9)]
    question = f"is it bright or dark at the {place(ground.cell)} ?"
    return _asked(scene, "brightness", question, ground.light, ground.cell)


def _empty(rng: np.random.RandomState, scene: Scene) -> Question | None:
    empty = sorted(set(range(9)) - {thing.cell for thing in scene.things})
    if len(empty) != 1:
        return None
    return _asked(scene, "empty", "where is it empty ?", place(empty[0]), empty[0])


def _asked(scene: Scene, type: str, question: str, answer: str, cell: int) -> Question:
    about = (len(scene.things) + cell,)
    return Question(type=type, question=question, answer=answer, about=about)


GROUND_TYPES: dict[str, Callable[[np.random.RandomState, Scene], Question | None]] = {
    "texture": _texture,
    "brightness": _brightness,
    "empty": _empty,
}
"""Every type of question about what lies behind."""
