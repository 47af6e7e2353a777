"""The model of one bundle on one machine: its parts put together."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from tightrope.latency.parts import (
    Decoding,
    Hosting,
    Prefilling,
    Preprocessing,
    Selecting,
    Stepping,
    TowerTime,
    time_of,
)
from tightrope.latency.prediction import PERCENTS, Estimate, Prediction, Spread, Stages
from tightrope.latency.workload import SourceImage, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """Fitted on one machine to one bundle; see the module's text for the shape."""

    decoding: dict[str, Decoding]
    """By format."""
    preprocessing: Preprocessing
    tower: tuple[TowerTime, ...]
    """By ascending resolution; empty for a text model."""
    selecting: dict[str, Selecting]
    """By method."""
    prefilling: Prefilling
    stepping: Stepping
    hosting: Hosting
    ttft: Spread
    tpot: Spread
    total: Spread

    def predict(self, work: Workload) -> Prediction:
        """What `work` will take, stage by stage."""
        stages = self.stages(work)
        steps = max(work.steps, 1)
        decode = stages.decode_ms
        if not work.steps:  # what a first step would take
            decode = self.stepping.token_ms + self.stepping.slot_ms * work.context
        return Prediction(
            stages=stages,
            ttft=Estimate(stages.ttft_ms, self.ttft),
            tpot=Estimate(decode / steps, self.tpot),
            total=Estimate(stages.total_ms, self.total),
            unmeasured=self.unmeasured(work),
        )

    def stages(self, work: Workload) -> Stages:
        """The fitted time of each stage."""
        new = sum(not image.known for image in work.images)
        return Stages(
            image_decode_ms=math.fsum(
                self._decode_ms(image, work.resolution) for image in work.images
            ),
            preprocess_ms=time_of(self.preprocessing, Preprocessing.units(work)),
            vision_ms=new * self._tower_ms(work) if new else 0.0,
            select_ms=self._select_ms(work),
            prefill_ms=self.prefilling.ms(work),
            host_ms=time_of(self.hosting, Hosting.units(work)),
            decode_ms=time_of(self.stepping, Stepping.units(work)),
        )

    def source_ms(self, image: SourceImage, resolution: int | None) -> float:
        """What a new image takes by what it is before it is scaled: the rest of its stages is 0."""
        scaling = self.preprocessing.megapixel_ms * image.megapixels(resolution)
        return self._decode_ms(image, resolution) + scaling

    def unmeasured(self, work: Workload) -> tuple[str, ...]:
        """What `work` has that no measured request had."""
        asked = {
            **{f"format {image.format}": image.format in self.decoding for image in work.images},
            f"selector {work.selector}": work.selector in (None, *self.selecting),
            f"schedule {work.schedule}": work.schedule in (None, *self.prefilling.schedules),
        }
        return tuple(name for name, measured in asked.items() if not measured)

    def _decode_ms(self, image: SourceImage, resolution: int | None) -> float:
        known = self.decoding.get(image.format)
        parts = self.decoding.values() if known is None else (known,)
        units = Decoding.units(image, resolution)
        return max((time_of(part, units) for part in parts), default=0.0)

    def _select_ms(self, work: Workload) -> float:
        if work.selector is None or not work.images:
            return 0.0
        known = self.selecting.get(work.selector)
        parts = self.selecting.values() if known is None else (known,)
        return max((time_of(part, Selecting.units(work)) for part in parts), default=0.0)

    def _tower_ms(self, work: Workload) -> float:
        """Between measured resolutions by area, outside in proportion to it; in one by tokens."""
        resolution = work.resolution
        if resolution is None or not self.tower:
            return 0.0
        below = [row for row in self.tower if row.resolution <= resolution]
        above = [row for row in self.tower if row.resolution >= resolution]
        if not below or not above:
            nearest = below[-1] if below else above[0]
            return nearest.image_ms * (resolution / nearest.resolution) ** 2
        low, high = below[-1], above[0]
        if low == high:
            alike = work.visual_tokens / low.visual_tokens if low.visual_tokens else 1.0
            return low.image_ms * alike
        share = (resolution**2 - low.resolution**2) / (high.resolution**2 - low.resolution**2)
        return low.image_ms + share * (high.image_ms - low.image_ms)


def check_model(model: LatencyModel) -> None:
    """Raises ValueError for figures that no fit gives: negative, infinite, out of order."""
    for name, number in _numbers(asdict(model), "model"):
        if not (math.isfinite(number) and number >= 0):
            raise ValueError(f"{name} is {number}")
    spreads = {"ttft": model.ttft, "tpot": model.tpot, "total": model.total}
    for name, spread in spreads.items():
        if len(spread.ratios) != len(PERCENTS) or sorted(spread.ratios) != list(spread.ratios):
            raise ValueError(f"{name} has no {len(PERCENTS)} ascending ratios")
    knots, resolutions = model.prefilling.knots, [row.resolution for row in model.tower]
    ordered = sorted({*knots}) == list(knots) and sorted({*resolutions}) == resolutions
    if not ordered or knots[:1] != (0.0,) or len(knots) != len(model.prefilling.token_ms):
        raise ValueError("knots or resolutions are out of order")


def _numbers(value: Any, name: str) -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _numbers(item, f"{name}: {key}")]
    if isinstance(value, (list, tuple)):
        return [pair for item in value for pair in _numbers(item, name)]
    return [(name, value)]
