"""Crowded pictures: many objects, close together, of which a question is about one or two.

What is asked about is named; everything else is a distractor that looks like it in one way or
another. A method that reads the question can leave the distractors out, one that keeps whatever
is diverse cannot.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tightrope.profiles.scenes.questions import Question, ask, where
from tightrope.profiles.scenes.sample import finished, object_at, object_size
from tightrope.profiles.scenes.scene import SIDE, Scene, Thing

FEWEST, MOST = 12, 40
CROWDED_TYPES = ("colour", "shape", "existence", "position", "relation")
OVERLAP = 4
"""Units by which one object may reach over the edge of another."""
CLEAR = 6
"""Units between an object's centre and the line between two ninths: its place is never in doubt."""
_TRIES = 400


def sample_crowded(rng: np.random.RandomState, objects: int) -> Scene:
    """A scene of FEWEST to MOST objects, each of them hidden at its edge at most."""
    while True:
        things: list[Thing] = []
        for _ in range(_TRIES):
            thing = _object(rng)
            if _is_clear(thing) and all(_apart(thing, other) for other in things):
                things.append(thing)
            if len(things) == objects:
                scene = finished(rng, "hard", things)
                busy = "noisy" if scene.background == "plain" else scene.background
                return replace(scene, background=busy)


def ask_crowded(rng: np.random.RandomState, scene: Scene, type: str) -> Question | None:
    """A question of one of CROWDED_TYPES, or None where the scene has no room for it."""
    # Several things are at each place, so that what is there has more than one answer.
    return where(rng, scene) if type == "position" else ask(rng, scene, type)


def _object(rng: np.random.RandomState) -> Thing:
    large = bool(rng.random_sample() < 0.4)
    size = object_size(rng, "hard", large)
    x, y = (int(value) for value in rng.randint(size // 2 + 2, SIDE - size // 2 - 1, 2))
    return object_at(rng, size, large, x, y)


def _is_clear(thing: Thing) -> bool:
    lines = (SIDE // 3, 2 * SIDE // 3)
    return all(abs(at - line) >= CLEAR for at in (thing.x, thing.y) for line in lines)


def _apart(one: Thing, other: Thing) -> bool:
    reach = (one.width + other.width) / 2 - OVERLAP
    return abs(one.x - other.x) >= reach or abs(one.y - other.y) >= reach
