"""How long latency is measured; apart from it because `--help` has no need of numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tightrope.configs import setting
from tightrope.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyConfig:
    """Raises InputError for what cannot be."""

    minutes: float = setting(2.0, "Longest time to measure.")

    def __post_init__(self) -> None:
        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise InputError(f"minutes is {self.minutes}; accepted: a number above 0")
