"""How well a model predicts requests that it was not fitted to: each point is left out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from tightrope.latency import LatencyModel
from tightrope.latency_file import HeldOut
from tightrope.profiles.latency.fit import Measured, fit_model, spread_of, with_spread

MISSED_PERCENT = 95
"""The percentile whose misses are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """Measured over predicted, of the requests of one point."""

    ttft: tuple[float, ...]
    tpot: tuple[float, ...]
    """Empty where nothing was decoded."""
    total: tuple[float, ...]


def fit_with_spread(points: Sequence[Measured]) -> tuple[LatencyModel, HeldOut]:
    """The model of all points, its spread, and the errors, from models that each left one out."""
    apart = [ratios for place in range(len(points)) if (ratios := left_out(points, place))]
    model = with_spread(
        fit_model(points),
        [ratio for ratios in apart for ratio in ratios.ttft],
        [ratio for ratios in apart for ratio in ratios.tpot],
        [ratio for ratios in apart for ratio in ratios.total],
    )
    ttft, tpot = [ratios.ttft for ratios in apart], [ratios.tpot for ratios in apart]
    return model, HeldOut(
        ttft_mape_percent=mape_percent(ttft),
        tpot_mape_percent=mape_percent(tpot),
        ttft_above_p95_percent=missed_percent(ttft),
        tpot_above_p95_percent=missed_percent(tpot),
    )


def left_out(points: Sequence[Measured], place: int) -> Ratios | None:
    """Of the point at `place`, predicted by the others; None where it alone has something."""
    left = points[place]
    prediction = fit_model([*points[:place], *points[place + 1 :]]).predict(left.work)
    if prediction.unmeasured:
        return None
    steps = left.work.steps
    ttft, tpot = prediction.ttft.fitted_ms, prediction.tpot.fitted_ms
    total = prediction.total.fitted_ms
    return Ratios(
        ttft=tuple(run.ttft_ms / ttft for run in left.runs) if ttft else (),
        tpot=tuple(run.decode_ms / steps / tpot for run in left.runs) if steps and tpot else (),
        total=tuple(run.total_ms / total for run in left.runs) if total else (),
    )


def mape_percent(points: Sequence[Sequence[float]]) -> float:
    """Mean over points of how far a prediction lies from the median of what was measured."""
    errors = [abs(1 / median(ratios) - 1) for ratios in points if ratios and median(ratios)]
    return 100 * fmean(errors) if errors else 0.0


def missed_percent(points: Sequence[Sequence[float]]) -> float:
    """Requests above a percentile that comes from all points but their own."""
    above, count = 0, 0
    for place, ratios in enumerate(points):
        others = [ratio for other in (*points[:place], *points[place + 1 :]) for ratio in other]
        if others and ratios:
            bound = spread_of(others).percentile(MISSED_PERCENT)
            above += int((np.array(ratios) > bound).sum())
            count += len(ratios)
    return 100 * above / count if count else 0.0
