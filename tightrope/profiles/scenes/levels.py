"""How difficult a kind of task is drawn: levels with names, or a number that counts or measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tightrope.checks import check_one_of
from tightrope.errors import InputError
from tightrope.profiles.scenes.scene import Level

SHARES: dict[Level, int] = {"easy": 10, "medium": 20, "hard": 70}
"""Of a task without a level of its own, in percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Levels with names, each with its share of a task that has no level of its own."""

    shares: Mapping[Level, int] = field(default_factory=lambda: dict(SHARES))

    def check(self, kind: str, level: object) -> None:
        check_one_of(f"level of {kind}", level, tuple(self.shares))

    def pick(self, rng: np.random.RandomState, wanted: str | int | None) -> str:
        """The level that is wanted, or one drawn by its share; takes one number either way."""
        at = rng.random_sample() * sum(self.shares.values())
        ends = np.cumsum(list(self.shares.values()))
        level = list(self.shares)[int(np.searchsorted(ends, at, side="right"))]
        return level if wanted is None else str(wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Levels that are numbers."""

    unit: str
    least: int
    most: int
    usual: int
    """What is drawn where nothing else is asked for."""
    limit: str
    """Why there is nothing beyond."""

    def check(self, kind: str, level: object) -> None:
        if type(level) is not int or not self.least <= level <= self.most:
            raise InputError(
                f"level of {kind} is {level!r}; accepted: whole {self.unit} from {self.least} to "
                f"{self.most}: {self.limit}"
            )

    def pick(self, rng: np.random.RandomState, wanted: str | int | None) -> int:
        return self.usual if wanted is None else int(wanted)


Levels = Named | Ladder
