"""Clips: a few frames of objects that move, of which one appears, disappears or changes colour.

A frame is an ordinary scene, drawn like one. Frames are counted from 1, in questions too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tightrope.profiles.scenes.grounding import Asked, Spot, distinct, lone
from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.sample import sample_scene
from tightrope.profiles.scenes.scene import SIDE, Background, Level, Scene, Split, Thing
from tightrope.profiles.scenes.words import COLOURS

Change = Literal["appears", "disappears", "recolours"]
CHANGES: tuple[Change, ...] = ("appears", "disappears", "recolours")
FEWEST_FRAMES, MOST_FRAMES = 4, 16
SECONDS_APART = 1.0
"""One frame from the next."""
MOST_MOVERS = 5
GAP = 2
"""Units that stay free between things, and at the picture's edge."""
CLEAR_WAY = SIDE // 12
"""Units that a thing must be seen to move before a question asks which way it goes."""
_WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_TRIES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """An object as it is at frame 1, and how far it goes from one frame to the next."""

    thing: Thing
    way: str = ""
    """left, right, up or down; empty if it stands still."""
    step: int = 0
    """Units a frame."""

    def at(self, frame: int) -> Thing:
        """The object at a frame, counted from 1, whether it can be seen or not."""
        across, down = _WAYS.get(self.way, (0, 0))
        x = self.thing.x + across * self.step * (frame - 1)
        y = self.thing.y + down * self.step * (frame - 1)
        return replace(self.thing, x=x, y=y, cell=y * 3 // SIDE * 3 + x * 3 // SIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Objects, each of another colour and shape, and what happens to the last of them."""

    movers: tuple[Mover, ...]
    frames: int
    change: Change
    frame: int
    """The first frame after the change, from 2."""
    colour: str
    """What the last object turns into if it changes colour."""
    level: Level
    background: Background
    pixel_seed: int

    def seen(self, mover: int, frame: int) -> Thing | None:
        """An object as a frame shows it, or None if it is not in it."""
        thing = self.movers[mover].at(frame)
        if mover < len(self.movers) - 1:
            return thing
        changed = frame >= self.frame
        if self.change == "recolours":
            return replace(thing, colour=self.colour) if changed else thing
        return thing if changed == (self.change == "appears") else None

    def scene(self, frame: int) -> Scene:
        """A frame as a scene that `draw` takes, its things in the order of the movers.

        The object that may be missing comes last: the others keep their shades in every frame.
        """
        things = (self.seen(mover, frame) for mover in range(len(self.movers)))
        return Scene(
            things=tuple(thing for thing in things if thing is not None),
            level=self.level,
            background=self.background,
            pixel_seed=self.pixel_seed,
        )


def sample_clip(
    rng: np.random.RandomState, split: Split, level: Level, most_frames: int = MOST_FRAMES
) -> Clip:
    """A clip of 4 to 16 frames with 3 to 5 objects, of which the last has a shape of its own."""
    while True:
        start = sample_scene(rng, split, level)
        things = distinct(start.objects)
        things = [things[at] for at in rng.permutation(len(things))[:MOST_MOVERS]]
        alone = lone(things, "shape")
        if len(things) >= 3 and alone:
            break
    things.append(things.pop(alone[rng.randint(len(alone))]))
    frames = int(rng.randint(FEWEST_FRAMES, most_frames + 1))
    others = [colour for colour in COLOURS if colour != things[-1].colour]
    return Clip(
        movers=_moving(rng, things, frames),
        frames=frames,
        change=CHANGES[rng.randint(len(CHANGES))],
        frame=int(rng.randint(2, frames + 1)),
        colour=others[rng.randint(len(others))],
        level=level,
        background=start.background,
        pixel_seed=start.pixel_seed,
    )


def ask_clip(rng: np.random.RandomState, clip: Clip, type: str) -> Asked | None:
    """A question of one of CLIP_TYPES, or None where the clip has no room for it."""
    return CLIP_TYPES[type](rng, clip)


def _moving(rng: np.random.RandomState, things: list[Thing], frames: int) -> tuple[Mover, ...]:
    """Each thing with a way that never meets another; it stands still if none was found.

    They start apart from each other, in cells of their own, so that standing still is always safe.
    """
    movers = [Mover(thing=thing) for thing in things]
    for index, thing in enumerate(things):
        for _ in range(_TRIES):
            far = int(rng.randint(SIDE // 8, 3 * SIDE // 4))
            way = list(_WAYS)[rng.randint(len(_WAYS))]
            mover = Mover(thing=thing, way=way, step=max(1, far // (frames - 1)))
            if _inside(mover.at(frames)) and not any(
                _meet(mover.at(frame), other.at(frame))
                for other in movers
                if other.thing is not thing
                for frame in range(1, frames + 1)
            ):
                movers[index] = mover
                break
    return tuple(movers)


def _inside(thing: Thing) -> bool:
    left, top, right, bottom = thing.box
    return min(left, top) >= GAP and max(right, bottom) <= SIDE - GAP


def _meet(one: Thing, other: Thing) -> bool:
    reach = (one.width + other.width) / 2 + GAP
    return abs(one.x - other.x) < reach and abs(one.y - other.y) < reach


def _colour_now(rng: np.random.RandomState, clip: Clip) -> Asked | None:
    return _colour(rng, clip, clip.frames, "colour-now", "what colour is the {} now ?")


def _colour_first(rng: np.random.RandomState, clip: Clip) -> Asked | None:
    return _colour(rng, clip, 1, "colour-first", "what colour was the {} at first ?")


def _colour(
    rng: np.random.RandomState, clip: Clip, frame: int, type: str, words: str
) -> Asked | None:
    """Of something with a shape of its own; mostly of what changes its colour."""
    shapes = lone([mover.thing for mover in clip.movers], "shape")
    seen = [index for index in shapes if clip.seen(index, frame) is not None]
    if not seen:
        return None
    index = seen[rng.randint(len(seen))]
    if clip.change == "recolours" and rng.random_sample() < 0.7:
        index = len(clip.movers) - 1
    thing = clip.seen(index, frame)
    assert thing is not None
    return _asked(clip, type, words.format(thing.shape), thing.colour, [(index, frame)])


def _appearance(rng: np.random.RandomState, clip: Clip) -> Asked | None:
    if clip.change != "appears":
        return None
    last = len(clip.movers) - 1
    return _asked(
        clip,
        "appearance",
        f"in which frame does the {clip.movers[last].thing.name} appear ?",
        str(clip.frame),
        [(last, clip.frame)],
    )


def _direction(rng: np.random.RandomState, clip: Clip) -> Asked | None:
    """Of something that is seen to go a clear way; what changes colour is named by its shape."""
    options = []
    for index, mover in enumerate(clip.movers):
        frames = [at for at in range(1, clip.frames + 1) if clip.seen(index, at) is not None]
        if mover.step * (frames[-1] - frames[0]) >= CLEAR_WAY:
            options.append((index, frames[0], frames[-1]))
    if not options:
        return None
    index, first, last = options[rng.randint(len(options))]
    mover = clip.movers[index]
    changes = clip.change == "recolours" and index == len(clip.movers) - 1
    name = mover.thing.shape if changes else mover.thing.name
    return _asked(
        clip,
        "direction",
        f"which way does the {name} move ?",
        mover.way,
        [(index, first), (index, last)],
    )


def _count(rng: np.random.RandomState, clip: Clip) -> Asked | None:
    movers = range(len(clip.movers))
    seen = [index for index in movers if clip.seen(index, clip.frames) is not None]
    return _asked(
        clip,
        "count",
        "how many objects are there in the last frame ?",
        str(len(seen)),
        [(index, clip.frames) for index in seen],
    )


def _asked(
    clip: Clip, type: str, question: str, answer: str, about: list[tuple[int, int]]
) -> Asked:
    """`about`: which mover, at which frame."""
    return Asked(
        question=Question(type=type, question=question, answer=answer),
        spots=tuple(
            Spot(image=frame - 1, box=clip.movers[mover].at(frame).box) for mover, frame in about
        ),
    )


def _glimpse(rng: np.random.RandomState, clip: Clip) -> Asked | None:
    """Of something that the frame in the middle does not show."""
    last = len(clip.movers) - 1
    frames = [at for at in range(1, clip.frames + 1) if clip.seen(last, at) is not None]
    if (clip.frames + 1) // 2 in frames:
        return None
    thing = clip.movers[last].thing
    return _asked(
        clip,
        "glimpse",
        f"what colour is the {thing.shape} ?",
        thing.colour,
        [(last, frame) for frame in frames],
    )


CLIP_TYPES: dict[str, Callable[[np.random.RandomState, Clip], Asked | None]] = {
    "colour-now": _colour_now,
    "colour-first": _colour_first,
    "appearance": _appearance,
    "direction": _direction,
    "count": _count,
    "glimpse": _glimpse,
}
"""Every type of question about a clip."""
