"""What a profile of quality asks; apart from it because `--help` has no need of numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tightrope.checks import check_type, check_whole
from tightrope.configs import setting
from tightrope.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityConfig:
    """Which points are asked which questions. Raises InputError for what cannot be."""

    points: int = setting(40, "Operating points that race, at most.")
    kv_budgets: tuple[int, ...] = setting(
        (), "Also race each policy under budgets of so many slots, such as 256,128."
    )
    minutes: float | None = None
    """Longest time to measure; None: until all is asked."""
    max_tokens: int = setting(256, "Longest answer.")
    limit: int | None = setting(None, "Ask the first so many questions of the shuffled task.")
    name: str | None = setting(None, "The task's name; its folder's if not.")

    def after(self, minutes: float) -> QualityConfig:
        """With the minutes that are left once so many are spent: a quarter of them at least."""
        if self.minutes is None:
            return self
        return replace(self, minutes=max(self.minutes - minutes, self.minutes / 4))

    def __post_init__(self) -> None:
        check_whole("points", self.points, least=1)
        check_whole("max_tokens", self.max_tokens, least=1)
        if self.limit is not None:
            check_whole("limit", self.limit, least=1)
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise InputError(f"minutes is {self.minutes}; accepted: a number above 0")
        if self.name is not None:
            check_type("name", self.name, str, "a task's name")
            if not self.name.strip():
                raise InputError("name is empty; accepted: a task's name")
