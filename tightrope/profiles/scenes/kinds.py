"""The kinds of tasks that are drawn: what each offers, and its questions about one scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np

from tightrope.arrays import Array
from tightrope.profiles.scenes import mix
from tightrope.profiles.scenes.board import (
    BOARD_TYPES,
    FEWEST_PIECES,
    MOST_PIECES,
    ask_board,
    sample_board,
)
from tightrope.profiles.scenes.clips import (
    CLIP_TYPES,
    MOST_FRAMES,
    SECONDS_APART,
    ask_clip,
    sample_clip,
)
from tightrope.profiles.scenes.crowded import (
    CROWDED_TYPES,
    FEWEST,
    MOST,
    ask_crowded,
    sample_crowded,
)
from tightrope.profiles.scenes.draw import draw
from tightrope.profiles.scenes.fine import FINE_TYPES, LARGEST, SMALLEST, sample_fine
from tightrope.profiles.scenes.grounding import Asked
from tightrope.profiles.scenes.grounds import (
    FAINTEST,
    GROUND_TYPES,
    STRONGEST,
    ask_grounds,
    sample_grounds,
)
from tightrope.profiles.scenes.levels import Ladder, Levels, Named
from tightrope.profiles.scenes.lines import Files, Made, Order, lines_of, numbered, placed
from tightrope.profiles.scenes.questions import QUESTIONS, Question, ask
from tightrope.profiles.scenes.recall import recall
from tightrope.profiles.scenes.sample import SPLITS, sample_scene, scene_rng
from tightrope.profiles.scenes.scene import SIDE, Level, Scene
from tightrope.profiles.scenes.several import (
    FEWEST_PICTURES,
    MOST_PICTURES,
    SEVERAL_TYPES,
    ask_several,
    sample_several,
)
from tightrope.profiles.scenes.tiled import (
    TILED_SIDES,
    TILED_TYPES,
    ask_tiled,
    draw_tiled,
    sample_tiled,
)
from tightrope.profiles.scenes.view_questions import VIEW_TYPES, ask_views
from tightrope.profiles.scenes.views import Views, render_view, sample_views

RECALL_WORDS = (60, 400)
_QUESTIONS_STREAM = 10
_SIDES = (336, 224, 168)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a kind of task offers. Its first number of pixels is the usual one."""

    make: Callable[[Order, np.random.RandomState], Made]
    types: tuple[str, ...]
    levels: Levels
    pixels: tuple[int, ...] = _SIDES


def make_one(kind: str, order: Order) -> Made:
    """Scene `index` of a split with one question of every type that it has room for.

    Questions come from a stream of their own and in one order, so that neither the scene nor any
    other question depends on which of them are kept.
    """
    place = SPLITS.index(order.split)
    rng = np.random.RandomState([_QUESTIONS_STREAM, place, order.seed, order.index])
    return KINDS[kind].make(order, rng)


def _make_scene(order: Order, rng: np.random.RandomState) -> Made:
    level = cast(Level, KINDS["scenes"].levels.pick(rng, order.level))
    scene = sample_scene(_stream(order), order.split, level)
    made = _single(order, scene, [ask(rng, scene, type) for type in QUESTIONS], level)
    if order.index % 2:
        return made
    low, high = RECALL_WORDS
    told = Asked(question=recall(rng, int(rng.randint(low, high + 1))), spots=())
    return Made(lines=made.lines + lines_of(order, [told], (), SIDE, {}), draw=made.draw)


def _make_tiled(order: Order, rng: np.random.RandomState) -> Made:
    level = cast(Level, KINDS["tiled"].levels.pick(rng, order.level))
    scene = sample_tiled(_stream(order), order.split, level, order.pixels)
    name = f"images/{order.index:05}.png"
    asked = [ask_tiled(rng, scene, type) for type in TILED_TYPES]
    lines = lines_of(order, placed([scene], asked), (name,), order.pixels, {"level": level})
    return Made(lines=lines, draw=lambda: {name: draw_tiled(scene, order.split, order.pixels)})


def _make_crowded(order: Order, rng: np.random.RandomState) -> Made:
    objects = cast(int, KINDS["crowded"].levels.pick(rng, order.level))
    scene = sample_crowded(_stream(order), objects)
    return _single(order, scene, [ask_crowded(rng, scene, type) for type in CROWDED_TYPES], objects)


def _make_fine(order: Order, rng: np.random.RandomState) -> Made:
    height = cast(int, KINDS["fine"].levels.pick(rng, order.level))
    scene = sample_fine(_stream(order), height)
    return _single(order, scene, [ask(rng, scene, type) for type in FINE_TYPES], height)


def _make_grounds(order: Order, rng: np.random.RandomState) -> Made:
    contrast = cast(int, KINDS["background"].levels.pick(rng, order.level))
    scene = sample_grounds(_stream(order), contrast)
    return _single(order, scene, [ask_grounds(rng, scene, type) for type in GROUND_TYPES], contrast)


def _make_board(order: Order, rng: np.random.RandomState) -> Made:
    pieces = cast(int, KINDS["board"].levels.pick(rng, order.level))
    scene = sample_board(_stream(order), pieces)
    return _single(order, scene, [ask_board(rng, scene, type) for type in BOARD_TYPES], pieces)


def _make_several(order: Order, rng: np.random.RandomState) -> Made:
    pictures = cast(int, KINDS["several"].levels.pick(rng, order.level))
    scenes = sample_several(_stream(order), order.split, pictures)
    names = numbered("images", order, pictures)
    asked = placed(scenes, [ask_several(rng, scenes, type) for type in SEVERAL_TYPES])
    return Made(
        lines=lines_of(order, asked, names, SIDE, {"level": pictures}),
        draw=lambda: {
            name: draw(scene, order.split, order.pixels)
            for name, scene in zip(names, scenes, strict=True)
        },
    )


def _make_clip(order: Order, rng: np.random.RandomState, most_frames: int = MOST_FRAMES) -> Made:
    level = cast(Level, KINDS["clips"].levels.pick(rng, order.level))
    clip = sample_clip(_stream(order), order.split, level, most_frames)
    names = numbered("images", order, clip.frames)
    asked = [ask_clip(rng, clip, type) for type in CLIP_TYPES]
    seconds = [SECONDS_APART * frame for frame in range(clip.frames)]
    lines = lines_of(order, asked, names, SIDE, {"level": level})
    return Made(
        lines=tuple({**line, "seconds": seconds} for line in lines),
        draw=lambda: {
            name: draw(clip.scene(frame), order.split, order.pixels)
            for frame, name in enumerate(names, 1)
        },
    )


def _make_views(order: Order, rng: np.random.RandomState) -> Made:
    views = sample_views(_stream(order))
    names = numbered("images", order, len(views.cameras))
    depths = numbered("depth", order, len(views.cameras))
    cameras = [
        {
            "depth": depth,
            "pose": camera.pose(),
            "intrinsics": camera.intrinsics(order.pixels),
        }
        for depth, camera in zip(depths, views.cameras, strict=True)
    ]
    asked = [ask_views(rng, views, type) for type in VIEW_TYPES]
    lines = lines_of(order, asked, names, SIDE, {"views": cameras})
    return Made(lines=lines, draw=lambda: _view_files(views, order.pixels, names, depths))


def _make_mix(order: Order, rng: np.random.RandomState) -> Made:
    makers = {name: _usual(kind) for name, kind in KINDS.items()}
    makers["clips"] = partial(_make_clip, most_frames=mix.MOST_FRAMES)
    return mix.make_mix(makers, order, rng)


def _usual(kind: Kind) -> mix.Make:
    """Makes scenes of a kind in its usual size."""
    return lambda order, rng: kind.make(replace(order, pixels=kind.pixels[0]), rng)


def _view_files(
    views: Views, pixels: int, names: tuple[str, ...], depths: tuple[str, ...]
) -> Files:
    files: dict[str, Array] = {}
    for name, depth, camera in zip(names, depths, views.cameras, strict=True):
        view = render_view(views, camera, pixels)
        files |= {name: view.rgb, depth: view.depth}
    return files


def _single(order: Order, scene: Scene, asked: list[Question | None], level: str | int) -> Made:
    """Questions about one picture."""
    name = f"images/{order.index:05}.png"
    return Made(
        lines=lines_of(order, placed([scene], asked), (name,), SIDE, {"level": level}),
        draw=lambda: {name: draw(scene, order.split, order.pixels)},
    )


def _stream(order: Order) -> np.random.RandomState:
    return scene_rng(order.split, order.seed, order.index)


KINDS: dict[str, Kind] = {
    "scenes": Kind(make=_make_scene, types=(*QUESTIONS, "recall"), levels=Named()),
    "crowded": Kind(
        make=_make_crowded,
        types=CROWDED_TYPES,
        levels=Ladder(
            unit="numbers of objects",
            least=FEWEST,
            most=MOST,
            usual=MOST,
            limit="more cannot be drawn without hiding one that is asked about",
        ),
    ),
    "fine": Kind(
        make=_make_fine,
        types=FINE_TYPES,
        levels=Ladder(
            unit="336ths of the width as the print's height",
            least=SMALLEST,
            most=LARGEST,
            usual=9,
            limit="in smaller print, strokes are thinner than a pixel",
        ),
    ),
    "background": Kind(
        make=_make_grounds,
        types=tuple(GROUND_TYPES),
        levels=Ladder(
            unit="grey levels of contrast",
            least=FAINTEST,
            most=STRONGEST,
            usual=8,
            limit="a fainter texture cannot be told from none",
        ),
    ),
    "several": Kind(
        make=_make_several,
        types=SEVERAL_TYPES,
        levels=Ladder(
            unit="numbers of pictures",
            least=FEWEST_PICTURES,
            most=MOST_PICTURES,
            usual=FEWEST_PICTURES,
            limit="more need more slots than a bundle of 336 pixels has",
        ),
    ),
    "board": Kind(
        make=_make_board,
        types=BOARD_TYPES,
        levels=Ladder(
            unit="numbers of pieces",
            least=FEWEST_PIECES,
            most=MOST_PIECES,
            usual=FEWEST_PIECES,
            limit="a board has no more squares",
        ),
    ),
    "tiled": Kind(
        make=_make_tiled,
        types=TILED_TYPES,
        levels=Named(shares={"medium": 20, "hard": 70}),
        pixels=TILED_SIDES,
    ),
    "clips": Kind(make=_make_clip, types=tuple(CLIP_TYPES), levels=Named()),
    "views": Kind(make=_make_views, types=tuple(VIEW_TYPES), levels=Named(shares={})),
}
KINDS["mix"] = Kind(
    make=_make_mix,
    types=tuple(dict.fromkeys(type for kind in KINDS.values() for type in kind.types)),
    levels=Named(shares={}),
    pixels=_SIDES[:1],
)
