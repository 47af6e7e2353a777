"""Questions about several views of one place: what is there, what is nearer or beside what."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np

from tightrope.profiles.scenes.grounding import Asked, Spot, lone
from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.views import Views, box_of, depth_of

CLEARLY_NEARER = 300
"""Millimetres, in every view."""


def ask_views(rng: np.random.RandomState, views: Views, type: str) -> Asked | None:
    """A question of one of VIEW_TYPES, or None where the scene has no room for it."""
    return VIEW_TYPES[type](rng, views)


def _count(rng: np.random.RandomState, views: Views) -> Asked | None:
    """Over all views; each object is seen clearly in one of them."""
    every = range(len(views.billboards))
    return _asked(
        views, "count", "how many objects are there ?", str(len(every)), _best(views, every)
    )


def _colour(rng: np.random.RandomState, views: Views) -> Asked | None:
    return _attribute(rng, views, "colour", "shape", "what colour is the {} ?")


def _shape(rng: np.random.RandomState, views: Views) -> Asked | None:
    return _attribute(rng, views, "shape", "colour", "what shape is the {} object ?")


def _attribute(
    rng: np.random.RandomState, views: Views, type: str, by: str, words: str
) -> Asked | None:
    """Of something that `by` alone names."""
    things = [board.thing for board in views.billboards]
    alone = lone(things, by)
    if not alone:
        return None
    index = alone[rng.randint(len(alone))]
    question = words.format(getattr(things[index], by))
    return _asked(views, type, question, getattr(things[index], type), _best(views, [index]))


def _nearer(rng: np.random.RandomState, views: Views) -> Asked | None:
    """Of two that the first view shows clearly, where every view agrees."""
    pairs = [
        (near, far)
        for near, far in _shown_first(views)
        if all(
            depth_of(views.billboards[far], camera) - depth_of(views.billboards[near], camera)
            >= CLEARLY_NEARER
            for camera in views.cameras
        )
    ]
    if not pairs:
        return None
    near, far = pairs[rng.randint(len(pairs))]
    one, other = (near, far) if rng.random_sample() < 0.5 else (far, near)
    return _asked(
        views,
        "nearer",
        f"which is nearer , the {_name(views, one)} or the {_name(views, other)} ?",
        _name(views, near),
        [(one, 0), (other, 0)],
    )


def _relation(rng: np.random.RandomState, views: Views) -> Asked | None:
    """Of two that do not overlap across in the first view."""
    first = views.cameras[0]
    pairs = [
        (left, right)
        for left, right in _shown_first(views)
        if box_of(views.billboards[left], first)[2] < box_of(views.billboards[right], first)[0]
    ]
    if not pairs:
        return None
    left, right = pairs[rng.randint(len(pairs))]
    yes = rng.random_sample() < 0.5
    one, other = (left, right) if yes else (right, left)
    name, beside = _name(views, one), _name(views, other)
    return _asked(
        views,
        "relation",
        f"is the {name} left of the {beside} in the first view ?",
        "yes" if yes else "no",
        [(one, 0), (other, 0)],
    )


def _shown_first(views: Views) -> list[tuple[int, int]]:
    """Ordered pairs of what the first view shows clearly."""
    return list(permutations([at for at, clear in enumerate(views.clear[0]) if clear], 2))


def _best(views: Views, boards: range | list[int]) -> list[tuple[int, int]]:
    """Each with the first view that shows it clearly."""
    return [(index, [clear[index] for clear in views.clear].index(True)) for index in boards]


def _name(views: Views, index: int) -> str:
    return views.billboards[index].thing.name


def _asked(
    views: Views, type: str, question: str, answer: str, about: list[tuple[int, int]]
) -> Asked:
    """`about`: which billboard, in which view."""
    return Asked(
        question=Question(type=type, question=question, answer=answer),
        spots=tuple(
            Spot(image=view, box=box_of(views.billboards[board], views.cameras[view]))
            for board, view in about
        ),
    )


VIEW_TYPES: dict[str, Callable[[np.random.RandomState, Views], Asked | None]] = {
    "count": _count,
    "colour": _colour,
    "shape": _shape,
    "nearer": _nearer,
    "relation": _relation,
}
"""Every type of question about views."""
