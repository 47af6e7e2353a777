"""The course of training: what each stage learns, from what, for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.training.batches import Diet
from tightrope.profiles.scenes.scene import Level

Learns = Literal["words", "sight", "bridge", "all"]

_HARDER: dict[Level, float] = {"easy": 0.1, "medium": 0.3, "hard": 0.6}
_EASIER: dict[Level, float] = {"easy": 0.35, "medium": 0.4, "hard": 0.25}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stretch of training."""

    name: str
    learns: Learns
    """words: the decoder, told by an oracle what each patch shows. sight: the tower, by what its
    patches show. bridge: the projector, towards the oracle's tokens. all: everything at once."""
    after: tuple[str, ...] = ()
    """Stages whose weights it starts from; the tower comes from the last of them."""
    steps: int
    rate: float
    diet: Diet
    whole: bool = False
    """Every decoder layer, else the working layers alone."""
    hide_late: float = 0.0
    """Share of steps in which text does not see the picture in the decoder's last third."""
    alone: bool = False
    """In one process, while the others of its kind run in theirs; else in all processes."""


_COUNTS = {"count": 1.4, "comparison": 1.3, "relation": 1.2, "list": 1.2}
_RELATIONS = _COUNTS | {"relation": 2.5}
_LISTS = {"count": 1.4, "comparison": 1.5, "list": 1.8, "digit": 1.5}

STAGES: tuple[Stage, ...] = (
    Stage(
        name="words",
        learns="words",
        steps=6000,
        rate=1.5e-3,
        alone=True,
        diet=Diet(
            pictures=8,
            text=120,
            levels=_HARDER,
            pixels={168: 0.6, 224: 0.3, 336: 0.1},
            drawn=False,
            all_patches=0.0,
            weights=_COUNTS,
        ),
    ),
    Stage(
        name="sight",
        learns="sight",
        steps=7000,
        rate=1.5e-3,
        alone=True,
        diet=Diet(
            pictures=8,
            text=0,
            levels=_EASIER,
            pixels={168: 0.85, 224: 0.15},
            texts=0.0,
        ),
    ),
    Stage(
        name="reading",
        learns="sight",
        after=("sight",),
        steps=2500,
        rate=1.2e-3,
        diet=Diet(
            pictures=8,
            text=0,
            levels={"easy": 0.2, "medium": 0.4, "hard": 0.4},
            pixels={168: 0.6, 224: 0.25, 336: 0.15},
            texts=0.0,
            kinds={"scenes": 0.3, "written": 0.7},
        ),
    ),
    Stage(
        name="bridge",
        learns="bridge",
        after=("words", "reading"),
        steps=400,
        rate=3e-3,
        diet=Diet(pictures=8, text=0, levels=_EASIER, pixels={168: 1.0}, texts=0.0),
    ),
    Stage(
        name="joint",
        learns="all",
        after=("bridge",),
        steps=4000,
        rate=4e-4,
        diet=Diet(
            pictures=8,
            text=120,
            levels={"easy": 0.2, "medium": 0.3, "hard": 0.5},
            pixels={168: 0.6, 224: 0.3, 336: 0.1},
            all_patches=0.5,
            weights=_RELATIONS,
            kinds={"scenes": 0.85, "written": 0.15},
        ),
    ),
    Stage(
        name="grow",
        learns="all",
        after=("joint",),
        steps=2000,
        rate=4e-4,
        whole=True,
        hide_late=0.3,
        diet=Diet(
            pictures=8,
            text=120,
            levels=_HARDER,
            pixels={168: 0.4, 224: 0.3, 336: 0.3},
            all_patches=0.5,
            weights=_LISTS,
            kinds={"scenes": 0.85, "written": 0.15},
            texts=0.2,
            text_words=300,
        ),
    ),
    Stage(
        name="full",
        learns="all",
        after=("grow",),
        steps=400,
        rate=2e-4,
        whole=True,
        hide_late=0.3,
        diet=Diet(
            pictures=8,
            text=120,
            levels=_HARDER,
            pixels={168: 0.2, 224: 0.25, 336: 0.55},
            all_patches=0.7,
            weights=_LISTS | {"count": 2.0, "comparison": 2.0},
            kinds={"scenes": 0.85, "written": 0.15},
            texts=0.1,
            text_words=400,
        ),
    ),
    Stage(
        name="kinds",
        learns="all",
        after=("full",),
        steps=4500,
        rate=5e-4,
        whole=True,
        hide_late=0.3,
        diet=Diet(
            pictures=8,
            text=120,
            levels=_HARDER,
            pixels={168: 0.35, 224: 0.35, 336: 0.3},
            all_patches=0.6,
            weights={"count": 1.4, "comparison": 1.4, "list": 1.4, "digit": 1.5},
            kinds={
                "scenes": 0.18,
                "written": 0.05,
                "crowded": 0.27,
                "fine": 0.15,
                "background": 0.12,
                "board": 0.15,
                "several": 0.08,
            },
            texts=0.06,
            text_words=400,
        ),
    ),
    Stage(
        name="finish",
        learns="all",
        after=("kinds",),
        steps=900,
        rate=4e-4,
        whole=True,
        hide_late=0.3,
        diet=Diet(
            pictures=8,
            text=120,
            levels=_HARDER,
            pixels={168: 0.45, 224: 0.3, 336: 0.25},
            all_patches=0.7,
            weights={"count": 1.8, "comparison": 1.6, "list": 2.0, "digit": 1.5},
            kinds={
                "scenes": 0.3,
                "crowded": 0.08,
                "fine": 0.1,
                "background": 0.04,
                "board": 0.36,
                "several": 0.12,
            },
            texts=0.04,
            text_words=400,
        ),
    ),
)

RELEASED = {"kinds": 1 / 3, "finish": 2 / 3}
"""Shares of the stages whose weights are averaged to what is released.

Between two ends of one training the mean answers better than either (Izmailov et al., "Averaging
weights leads to wider optima and better generalization", 2018, arXiv:1803.05407).
"""
