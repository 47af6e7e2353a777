"""What a model predicts: the time of every stage, and the spread around their sum."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PERCENTS = (0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 100.0)
"""Percentiles of which a spread keeps the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Measured over predicted, of all measured requests."""

    mean: float
    ratios: tuple[float, ...]
    """At each of PERCENTS, ascending."""

    def percentile(self, percent: float) -> float:
        """The ratio below which `percent` of the requests lay."""
        for place, upper in enumerate(PERCENTS[1:]):
            if percent <= upper:
                share = (percent - PERCENTS[place]) / (upper - PERCENTS[place])
                low, high = self.ratios[place : place + 2]
                return min(high, low + (high - low) * share)  # rounding must not pass it
        return self.ratios[-1]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A predicted time."""

    fitted_ms: float
    spread: Spread

    @property
    def mean_ms(self) -> float:
        return self.fitted_ms * self.spread.mean

    def percentile_ms(self, percent: float) -> float:
        """Milliseconds that `percent` of such requests do not exceed."""
        return self.fitted_ms * self.spread.percentile(percent)

    def to_dict(self) -> dict[str, float]:
        """JSON-ready: mean and percentiles."""
        told = {f"p{percent}_ms": self.percentile_ms(percent) for percent in (50, 95, 99)}
        return {"mean_ms": self.mean_ms, **told}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Milliseconds of each stage, named as `Timings` names them."""

    image_decode_ms: float
    preprocess_ms: float
    vision_ms: float
    select_ms: float
    prefill_ms: float
    host_ms: float
    """What the others leave of the time to the first token."""
    decode_ms: float

    @property
    def ttft_ms(self) -> float:
        images = self.image_decode_ms + self.preprocess_ms + self.vision_ms + self.select_ms
        return images + self.prefill_ms + self.host_ms

    @property
    def total_ms(self) -> float:
        return self.ttft_ms + self.decode_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a request will take."""

    stages: Stages
    ttft: Estimate
    """Time to the first token."""
    tpot: Estimate
    """Time per token after the first."""
    total: Estimate
    unmeasured: tuple[str, ...] = ()
    """Parts of it that were not measured; the dearest of their kind stands in for each."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "stages": asdict(self.stages),
            "ttft": self.ttft.to_dict(),
            "tpot": self.tpot.to_dict(),
            "total": self.total.to_dict(),
            "unmeasured": list(self.unmeasured),
        }
