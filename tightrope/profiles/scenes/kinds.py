"""The kinds of tasks that are drawn: what each offers, and its questions about one scene."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tightrope.arrays import Array
from tightrope.profiles.scenes.clips import CLIP_TYPES, ask_clip, sample_clip
from tightrope.profiles.scenes.draw import draw
from tightrope.profiles.scenes.grounding import Asked, Spot
from tightrope.profiles.scenes.questions import QUESTIONS, Question, ask
from tightrope.profiles.scenes.recall import recall
from tightrope.profiles.scenes.sample import LEVELS, SPLITS, sample_scene, scene_rng
from tightrope.profiles.scenes.scene import SIDE, Level, Scene, Split
from tightrope.profiles.scenes.tiled import (
    TILED_LEVELS,
    TILED_SIDES,
    TILED_TYPES,
    ask_tiled,
    draw_tiled,
    sample_tiled,
)
from tightrope.profiles.scenes.view_questions import VIEW_TYPES, ask_views
from tightrope.profiles.scenes.views import Views, render_view, sample_views

LEVEL_SHARES: dict[Level, int] = {"easy": 10, "medium": 20, "hard": 70}
"""Of a task without a level of its own, in percent."""
RECALL_WORDS = (60, 400)
_QUESTIONS_STREAM = 10

Files = Mapping[str, Array]
"""Path in the task's folder -> uint8 [h,w,3], or uint16 [h,w] for depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which scene is wanted, and how."""

    split: Split
    seed: int
    index: int
    pixels: int
    level: Level | None = None
    """None: drawn by LEVEL_SHARES."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A scene's lines for `task.jsonl`, and the files that they name."""

    lines: tuple[dict[str, Any], ...]
    draw: Callable[[], Files]
    """Called only if a line with images is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a kind of task offers. Its first number of pixels is the usual one."""

    make: Callable[[Order, np.random.RandomState], Made]
    pixels: tuple[int, ...]
    levels: tuple[Level, ...]
    types: tuple[str, ...]


def make_one(kind: str, order: Order) -> Made:
    """Scene `index` of a split with one question of every type that it has room for.

    Questions come from a stream of their own and in one order, so that neither the scene nor any
    other question depends on which of them are kept.
    """
    place = SPLITS.index(order.split)
    rng = np.random.RandomState([_QUESTIONS_STREAM, place, order.seed, order.index])
    return KINDS[kind].make(order, rng)


def _make_scene(order: Order, rng: np.random.RandomState) -> Made:
    level = _level(rng, order, LEVELS)
    scene = sample_scene(_stream(order), order.split, level)
    name = f"images/{order.index:05}.png"
    asked = [ask(rng, scene, type) for type in QUESTIONS]
    lines = _lines(order, _placed(scene, asked), (name,), SIDE, {"level": level})
    if order.index % 2 == 0:
        low, high = RECALL_WORDS
        told = Asked(question=recall(rng, int(rng.randint(low, high + 1))), spots=())
        lines += _lines(order, [told], (), SIDE, {})
    return Made(lines=lines, draw=lambda: {name: draw(scene, order.split, order.pixels)})


def _make_tiled(order: Order, rng: np.random.RandomState) -> Made:
    level = _level(rng, order, TILED_LEVELS)
    scene = sample_tiled(_stream(order), order.split, level, order.pixels)
    name = f"images/{order.index:05}.png"
    asked = [ask_tiled(rng, scene, type) for type in TILED_TYPES]
    lines = _lines(order, _placed(scene, asked), (name,), order.pixels, {"level": level})
    return Made(lines=lines, draw=lambda: {name: draw_tiled(scene, order.split, order.pixels)})


def _make_clip(order: Order, rng: np.random.RandomState) -> Made:
    level = _level(rng, order, LEVELS)
    clip = sample_clip(_stream(order), order.split, level)
    names = _numbered("images", order, clip.frames)
    asked = [ask_clip(rng, clip, type) for type in CLIP_TYPES]
    lines = _lines(order, asked, names, SIDE, {"level": level})
    return Made(
        lines=lines,
        draw=lambda: {
            name: draw(clip.scene(frame), order.split, order.pixels)
            for frame, name in enumerate(names, 1)
        },
    )


def _make_views(order: Order, rng: np.random.RandomState) -> Made:
    views = sample_views(_stream(order))
    names = _numbered("images", order, len(views.cameras))
    depths = _numbered("depth", order, len(views.cameras))
    cameras = [
        {
            "depth": depth,
            "pose": camera.pose(),
            "intrinsics": camera.intrinsics(order.pixels),
        }
        for depth, camera in zip(depths, views.cameras, strict=True)
    ]
    asked = [ask_views(rng, views, type) for type in VIEW_TYPES]
    lines = _lines(order, asked, names, SIDE, {"views": cameras})
    return Made(lines=lines, draw=lambda: _view_files(views, order.pixels, names, depths))


def _view_files(
    views: Views, pixels: int, names: tuple[str, ...], depths: tuple[str, ...]
) -> Files:
    files: dict[str, Array] = {}
    for name, depth, camera in zip(names, depths, views.cameras, strict=True):
        view = render_view(views, camera, pixels)
        files |= {name: view.rgb, depth: view.depth}
    return files


KINDS: dict[str, Kind] = {
    "scenes": Kind(
        make=_make_scene, pixels=(336, 224, 168), levels=LEVELS, types=(*QUESTIONS, "recall")
    ),
    "tiled": Kind(make=_make_tiled, pixels=TILED_SIDES, levels=TILED_LEVELS, types=TILED_TYPES),
    "clips": Kind(make=_make_clip, pixels=(336, 224, 168), levels=LEVELS, types=tuple(CLIP_TYPES)),
    "views": Kind(make=_make_views, pixels=(336, 224, 168), levels=(), types=tuple(VIEW_TYPES)),
}


def _stream(order: Order) -> np.random.RandomState:
    return scene_rng(order.split, order.seed, order.index)


def _level(rng: np.random.RandomState, order: Order, levels: tuple[Level, ...]) -> Level:
    """The level that was ordered, or one drawn by its share; takes one number either way."""
    at = rng.random_sample() * sum(LEVEL_SHARES[level] for level in levels)
    for level in levels[:-1]:
        at -= LEVEL_SHARES[level]
        if at < 0:
            return order.level or level
    return order.level or levels[-1]


def _numbered(folder: str, order: Order, count: int) -> tuple[str, ...]:
    return tuple(f"{folder}/{order.index:05}-{number:02}.png" for number in range(1, count + 1))


def _placed(scene: Scene, asked: Iterable[Question | None]) -> list[Asked]:
    """Questions about one picture, with the boxes of what they are about."""
    return [
        Asked(
            question=question,
            spots=tuple(Spot(image=0, box=scene.things[at].box) for at in question.about),
        )
        for question in asked
        if question is not None
    ]


def _lines(
    order: Order,
    asked: Iterable[Asked | None],
    images: tuple[str, ...],
    side: int,
    info: Mapping[str, Any],
) -> tuple[dict[str, Any], ...]:
    """`side`: the pictures' width in the units of the spots."""
    return tuple(_line(order, one, images, side, info) for one in asked if one is not None)


def _line(
    order: Order, asked: Asked, images: tuple[str, ...], side: int, info: Mapping[str, Any]
) -> dict[str, Any]:
    question = asked.question
    fields: dict[str, Any] = {"split": order.split, "scene": order.index, **info}
    if images:
        boxes = [spot.box for spot in asked.spots]
        fields["pixels"] = order.pixels
        fields["about"] = [[_rounded(edge * order.pixels / side) for edge in box] for box in boxes]
        if boxes:
            sides = [min(right - left, bottom - top) for left, top, right, bottom in boxes]
            fields["smallest"] = _rounded(min(sides) * SIDE / side)
    if len(images) > 1:
        fields["about_images"] = [spot.image for spot in asked.spots]
    if question.thought is not None:
        fields["thought"] = question.thought
    messages = []
    for earlier, answer in question.earlier:
        messages.append({"role": "user", "content": earlier})
        messages.append({"role": "assistant", "content": answer})
    said = {"messages": [*messages, {"role": "user", "content": question.question}]}
    return {
        "id": f"{order.index:05}-{question.type}",
        "images": list(images),
        **(said if messages else {"question": question.question}),
        "answer": question.answer,
        "type": question.type,
        "info": fields,
    }


def _rounded(value: float) -> float:
    return round(value, 2)
