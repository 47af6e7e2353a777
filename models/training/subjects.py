"""What training shows and asks about: pictures of a kind, and questions of its types."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tightrope.profiles.scenes.board import (
    BOARD_TYPES,
    FEWEST_PIECES,
    MOST_PIECES,
    ask_board,
    sample_board,
)
from tightrope.profiles.scenes.crowded import CROWDED_TYPES, ask_crowded, sample_crowded
from tightrope.profiles.scenes.fine import FINE_TYPES, LARGEST, SMALLEST, sample_fine
from tightrope.profiles.scenes.grounds import (
    FAINTEST,
    GROUND_TYPES,
    STRONGEST,
    ask_grounds,
    sample_grounds,
)
from tightrope.profiles.scenes.questions import QUESTIONS, Question, ask
from tightrope.profiles.scenes.sample import sample_scene, sample_written
from tightrope.profiles.scenes.scene import SIDE, Level, Scene, Split
from tightrope.profiles.scenes.several import (
    FEWEST_PICTURES,
    MOST_PICTURES,
    SEVERAL_TYPES,
    ask_several,
    sample_several,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Pictures that are shown together, and what can be asked about them."""

    scenes: tuple[Scene, ...]
    types: tuple[str, ...]
    ask: Callable[[np.random.RandomState, str], Question | None]
    """`about` counts the boxes of all scenes through."""


Draw = Callable[[np.random.RandomState, Split, Any], Subject]
"""A subject of a level: of a name for scenes, else a number as the kind of task counts."""


def _scene(rng: np.random.RandomState, split: Split, level: Level) -> Subject:
    return _single(sample_scene(rng, split, level), tuple(QUESTIONS), ask)


def _written(rng: np.random.RandomState, split: Split, level: Level) -> Subject:
    return _single(sample_written(rng, split, level), tuple(QUESTIONS), ask)


def _crowded(rng: np.random.RandomState, split: Split, level: int) -> Subject:
    return _single(sample_crowded(rng, level), CROWDED_TYPES, ask_crowded)


def _fine(rng: np.random.RandomState, split: Split, level: int) -> Subject:
    return _single(sample_fine(rng, level), FINE_TYPES, ask)


def _grounds(rng: np.random.RandomState, split: Split, level: int) -> Subject:
    return _single(sample_grounds(rng, level), tuple(GROUND_TYPES), ask_grounds)


def _board(rng: np.random.RandomState, split: Split, level: int) -> Subject:
    return _single(sample_board(rng, level), BOARD_TYPES, ask_board)


def _several(rng: np.random.RandomState, split: Split, level: int) -> Subject:
    scenes = sample_several(rng, split, level)
    return Subject(
        scenes=scenes,
        types=SEVERAL_TYPES,
        ask=lambda rng, type: ask_several(rng, scenes, type),
    )


SEVERAL = "several"
"""Shows more than one picture, so that fewer of them make a step."""
SUBJECTS: dict[str, Draw] = {
    "scenes": _scene,
    "written": _written,
    "crowded": _crowded,
    "fine": _fine,
    "background": _grounds,
    "board": _board,
    SEVERAL: _several,
}
_RANGES = {
    "crowded": (8, 32),
    "fine": (SMALLEST, LARGEST),
    "background": (FAINTEST, STRONGEST),
    "board": (FEWEST_PIECES, MOST_PIECES),
    SEVERAL: (FEWEST_PICTURES, MOST_PICTURES),
}
_LEGIBLE = 5.5
"""Pixels of height below which print is noise: guessing it teaches nothing."""


def trained_level(rng: np.random.RandomState, kind: str, named: Level, pixels: int) -> Level | int:
    """Of what training draws at a side of `pixels`: where levels are numbers, evenly from all."""
    if kind not in _RANGES:
        return named
    least, most = _RANGES[kind]
    if kind == "fine":
        least = max(least, math.ceil(_LEGIBLE * SIDE / pixels))
    return int(rng.randint(least, most + 1)) if least < most else least


def _single(
    scene: Scene,
    types: tuple[str, ...],
    ask: Callable[[np.random.RandomState, Scene, str], Question | None],
) -> Subject:
    return Subject(scenes=(scene,), types=types, ask=lambda rng, type: ask(rng, scene, type))
