"""Repeated measurements of one quantity, and the figures that are told of them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from tightrope.errors import InputError

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Samples:
    """Values in the order in which they were measured, one or more, all in one unit."""

    values: tuple[float, ...]
    unit: str
    """Such as "ms" or "tokens/s"."""

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("values is empty; accepted: one measurement or more")

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def stddev(self) -> float:
        """Sample standard deviation; 0 of a single value."""
        return stdev(self.values) if self.count > 1 else 0.0

    @property
    def median(self) -> float:
        return self.percentile(50)

    def percentile(self, percent: float) -> float:
        """The value below which `percent`, 0 to 100, of the values lie.

        Linear between the two nearest, as AIPerf's percentiles are.
        """
        ordered = sorted(self.values)
        place = (self.count - 1) * percent / 100
        below = int(place)
        above = min(below + 1, self.count - 1)
        return ordered[below] + (ordered[above] - ordered[below]) * (place - below)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values, without the values themselves."""
        percentiles = {f"p{percent}": self.percentile(percent) for percent in PERCENTILES}
        spread = {"count": self.count, "mean": self.mean, "stddev": self.stddev}
        return {"unit": self.unit, **spread, **percentiles}
