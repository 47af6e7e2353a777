"""What questions about several images share: things, and in which image they are seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.scene import Thing


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Something to be seen in one of several images."""

    image: int
    """Its place among the images, from 0."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question about several images, with where to look instead of `about`."""

    question: Question
    spots: tuple[Spot, ...]


def distinct(things: Iterable[Thing]) -> list[Thing]:
    """The first of each colour and shape: these two words name it."""
    found: dict[tuple[str, str], Thing] = {}
    for thing in things:
        found.setdefault((thing.colour, thing.shape), thing)
    return list(found.values())


def lone(things: Sequence[Thing], attribute: str) -> list[int]:
    """Places of the things that share their `attribute` with no other."""
    values = [getattr(thing, attribute) for thing in things]
    return [index for index, value in enumerate(values) if values.count(value) == 1]
