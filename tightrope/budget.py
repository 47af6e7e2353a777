"""What a request may take: the limits that a plan has to keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from tightrope.checks import check_one_of, check_type, shown
from tightrope.configs import setting
from tightrope.errors import InputError

Unreachable = Literal["refuse", "best_effort"]
UNREACHABLE: tuple[Unreachable, ...] = ("refuse", "best_effort")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of one request, counted from its submission; at least one is given.

    Raises InputError for limits that nothing can mean.
    """

    deadline_ms: float | None = setting(None, "When the answer has to be complete.")
    first_token_ms: float | None = setting(None, "When its first token has to be there.")
    energy_j: float | None = setting(None, "Energy that it may cost.")
    min_quality: float | None = setting(None, "Measured quality it must not go below, 0..1.")
    task: str | None = setting(None, "Task by whose questions quality was measured.")
    """Its name; None: the only one there is."""
    if_unreachable: Unreachable = setting(
        "refuse", "Where no point meets the budget: refuse, or best_effort takes the cheapest."
    )

    def __post_init__(self) -> None:
        for name, unit in (("deadline_ms", "ms"), ("first_token_ms", "ms"), ("energy_j", "joules")):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < math.inf):
                raise InputError(f"{name} is {shown(value)}; accepted: {unit} above 0, finite")
        quality = self.min_quality
        if quality is not None and not (_is_number(quality) and 0 <= quality <= 1):
            raise InputError(f"min_quality is {shown(quality)}; accepted: a share, 0..1")
        if self.task is not None:
            check_type("task", self.task, str, "a task's name")
        check_one_of("if_unreachable", self.if_unreachable, UNREACHABLE)
        limits = (self.deadline_ms, self.first_token_ms, self.energy_j, self.min_quality)
        if all(limit is None for limit in limits):
            raise InputError(
                "a budget has no limit; accepted: deadline_ms, first_token_ms, energy_j or "
                "min_quality"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def in_words(budget: Budget) -> str:
    """What is asked, for people: "deadline 900 ms and min_quality 0.8"."""
    said = [
        f"{name} {value:g}{unit}"
        for name, value, unit in (
            ("deadline", budget.deadline_ms, " ms"),
            ("first token", budget.first_token_ms, " ms"),
            ("energy", budget.energy_j, " J"),
            ("min_quality", budget.min_quality, ""),
        )
        if value is not None
    ]
    return " and ".join(said)
