"""What requests take at a point: measured from end to end, or predicted from a latency model.

A prediction for a task holds for answers of all the lengths that the task's questions were given at
this point: its percentiles are those of the mixture of all of them, each with the model's spread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median_low
from typing import Any, Literal

import numpy as np

from tightrope.arrays import Doubles
from tightrope.latency import Estimate, LatencyModel, Spread, Stages, Workload
from tightrope.power import PowerModel
from tightrope.profiles.latency.goodput import Goodput, Slos, goodput
from tightrope.profiles.latency.measured import PointRuns
from tightrope.profiles.samples import Samples

Source = Literal["measured", "predicted"]
GRID = 500
"""Places of a spread that stand for it in a mixture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Milliseconds that so many of a hundred requests do not exceed."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What requests take at one point."""

    source: Source
    runs: int
    """That were measured; 0 where nothing was."""
    ttft: Percentiles
    itl: Percentiles | None
    """Of a request's mean time per token after the first; None of answers of one token."""
    total: Percentiles
    stages: Stages
    """Means."""
    peak_memory_bytes: int | None = None
    """None: not measured."""
    energy_j: float | None = None
    """None: not measured."""
    goodput: Goodput | None = None
    """None: not measured, or nothing was promised."""

    @property
    def first_token_stages(self) -> dict[str, float]:
        """Mean milliseconds of what comes before the first token, for people."""
        stages = self.stages
        return {
            "image": stages.image_decode_ms + stages.preprocess_ms,
            "vision": stages.vision_ms,
            "select": stages.select_ms,
            "prefill": stages.prefill_ms,
            "host": stages.host_ms,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def measured(found: PointRuns, slos: Slos) -> Took:
    """What was measured; slos: promises to count the runs by."""
    return Took(
        source="measured",
        runs=len(found.runs),
        ttft=_of_samples(found.ttft),
        itl=None if found.itl is None else _of_samples(found.itl),
        total=_of_samples(found.total),
        stages=found.stages,
        peak_memory_bytes=found.peak_memory_bytes,
        energy_j=found.energy_j,
        goodput=goodput(found.runs, slos) if slos else None,
    )


def predicted(
    model: LatencyModel, work: Workload, lengths: Sequence[int], power: PowerModel | None = None
) -> Took:
    """What `work` will take where answers are as long as `lengths`, one or more, in tokens.

    power: None where nobody measured what the board draws.
    """
    counts = Counter(max(1, length) for length in lengths)
    each = {length: model.stages(replace(work, completion_tokens=length)) for length in counts}
    weights = np.array([counts[length] for length in each], dtype=np.float64)
    totals = np.array([stages.ttft_ms + stages.decode_ms for stages in each.values()])
    decode = np.array([stages.decode_ms for stages in each.values()])
    middle = model.predict(replace(work, completion_tokens=median_low(counts.elements())))
    stages = replace(middle.stages, decode_ms=float(np.average(decode, weights=weights)))
    return Took(
        source="predicted",
        runs=0,
        ttft=_of_estimate(middle.ttft),
        itl=_of_estimate(middle.tpot) if max(counts) > 1 else None,
        total=_of_mixture(totals, weights, model.total),
        stages=stages,
        energy_j=None if power is None else power.energy_j(stages),
    )


def _of_samples(samples: Samples) -> Percentiles:
    return Percentiles(
        p50_ms=samples.percentile(50), p95_ms=samples.percentile(95), p99_ms=samples.percentile(99)
    )


def _of_estimate(estimate: Estimate) -> Percentiles:
    return Percentiles(
        p50_ms=estimate.percentile_ms(50),
        p95_ms=estimate.percentile_ms(95),
        p99_ms=estimate.percentile_ms(99),
    )


def _of_mixture(fitted: Doubles, weights: Doubles, spread: Spread) -> Percentiles:
    """fitted: [N] ms; weights: [N], how many requests have each."""
    places = (np.arange(GRID) + 0.5) / GRID
    ratios = np.array([spread.percentile(float(place) * 100) for place in places])
    times = np.outer(fitted, ratios).ravel()
    order = np.argsort(times, kind="stable")
    heavy = np.repeat(weights, GRID)[order]
    shares = (np.cumsum(heavy) - heavy / 2) / heavy.sum()
    p50, p95, p99 = np.interp([0.5, 0.95, 0.99], shares, times[order])
    return Percentiles(p50_ms=float(p50), p95_ms=float(p95), p99_ms=float(p99))
