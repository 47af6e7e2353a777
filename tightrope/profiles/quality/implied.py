"""Answers that are known before they are asked for, because another point's must be the same.

Answers are greedy: what a point does not change cannot change what is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

from tightrope.point import OperatingPoint
from tightrope.profiles.task.task import Item


class Answered(Protocol):
    """What became of a question."""

    @property
    def thinking_tokens(self) -> int: ...


Outcome = TypeVar("Outcome", bound=Answered)


def implied(
    point: OperatingPoint, item: Item, outcomes: Mapping[OperatingPoint, Mapping[str, Outcome]]
) -> Outcome | None:
    """What became of `item` at `point`, where it follows from `outcomes`; None where it does not.

    A question without images is answered alike whatever is done to images, and a thought that
    never reached its cap like one without.
    """
    if not item.images:
        blind = _blind(point)
        for other, known in outcomes.items():
            if item.id in known and _blind(other) == blind:
                return known[item.id]
    if point.thinking_tokens:
        free = outcomes.get(replace(point, thinking_tokens=None), {}).get(item.id)
        if free is not None and free.thinking_tokens < point.thinking_tokens:
            return free
    return None


def _blind(point: OperatingPoint) -> OperatingPoint:
    return replace(point, selector=None, keep=None, resolution=None)
