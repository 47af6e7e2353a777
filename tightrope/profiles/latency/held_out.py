"""How far requests lie from their predictions: those drawn at random, which no fit has seen.

They are what predictions are made for, so their own spread is the one that predictions carry: one
in twenty of the next is above the p95 of those before (the quantile of split conformal prediction:
Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005). The share that is told
is that of one half above the bound of the other.

On a machine too slow for enough of them it is told by the kinds of request that were fitted, each
predicted by a model of the others. The spread is then between the two errors of a kind. Where it
was fitted the error is too small, where it was left out too large; their geometric mean has the
variance of the errors themselves (MacKinnon and White 1985, HC2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from tightrope.latency import LatencyModel, Prediction
from tightrope.latency_file import HeldOut
from tightrope.profiles.latency.fit import Measured, fit_model, spread_of, with_spread

LEAST_DRAWN = 60
"""Requests by which a spread is told: of fewer, one or two decide on the p95."""
MISSED_PERCENT = 95
"""The percentile whose misses are counted."""

Several = tuple[float, ...]
"""Measured over predicted, of the requests of one kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """Measured over predicted, of the requests of one point."""

    ttft: Several
    tpot: Several
    """Empty where nothing was decoded."""
    total: Several


def fit_with_spread(
    points: Sequence[Measured], drawn: Sequence[Measured] = ()
) -> tuple[LatencyModel, HeldOut]:
    """The model of all points with its spread, and how far it lies from what it has not seen.

    drawn: requests drawn at random, of which one is not more usual than another.
    """
    model = fit_model(points)
    if len(drawn) >= LEAST_DRAWN:
        return _by_drawn(model, [_ratios(point, model.predict(point.work)) for point in drawn])
    return _by_kinds(model, points)


def _by_drawn(model: LatencyModel, drawn: Sequence[Ratios]) -> tuple[LatencyModel, HeldOut]:
    """The model with the spread of requests drawn at random."""
    ttft = [ratio for each in drawn for ratio in each.ttft]
    tpot = [ratio for each in drawn for ratio in each.tpot]
    total = [ratio for each in drawn for ratio in each.total]
    return with_spread(model, ttft, tpot, total), HeldOut(
        ttft_mape_percent=_error_percent(ttft),
        tpot_mape_percent=_error_percent(tpot),
        ttft_above_p95_percent=_halves_above_percent(ttft),
        tpot_above_p95_percent=_halves_above_percent(tpot),
        drawn=len(drawn),
    )


def _error_percent(ratios: Sequence[float]) -> float:
    """Mean of how far what was predicted for one of two requests lies from what each took."""
    usual = spread_of(ratios).percentile(50)
    errors = [abs(usual / ratio - 1) for ratio in ratios if ratio]
    return 100 * fmean(errors) if errors else 0.0


def _halves_above_percent(ratios: Sequence[float]) -> float:
    """Of every other request, those above the p95 of the rest, and the other way round."""
    halves = ratios[::2], ratios[1::2]
    above = 0
    for one, other in (halves, halves[::-1]):
        bound = spread_of(one).percentile(MISSED_PERCENT)
        above += sum(ratio > bound for ratio in other)
    return 100 * above / len(ratios) if ratios else 0.0


def _by_kinds(model: LatencyModel, points: Sequence[Measured]) -> tuple[LatencyModel, HeldOut]:
    """The model with the spread of the kinds that it was fitted to."""
    pairs = [
        (_ratios(point, model.predict(point.work)), left_out(points, place))
        for place, point in enumerate(points)
    ]
    nothing = Ratios(ttft=(), tpot=(), total=())
    both = [
        (seen, nothing) if apart is None else (_between(seen, apart), apart)
        for seen, apart in pairs
    ]
    spread = with_spread(
        model,
        [ratio for fair, _ in both for ratio in fair.ttft],
        [ratio for fair, _ in both for ratio in fair.tpot],
        [ratio for fair, _ in both for ratio in fair.total],
    )
    ttft = [(fair.ttft, apart.ttft) for fair, apart in both]
    tpot = [(fair.tpot, apart.tpot) for fair, apart in both]
    return spread, HeldOut(
        ttft_mape_percent=_mape_percent([apart for _, apart in ttft]),
        tpot_mape_percent=_mape_percent([apart for _, apart in tpot]),
        ttft_above_p95_percent=_missed_percent(ttft),
        tpot_above_p95_percent=_missed_percent(tpot),
    )


def left_out(points: Sequence[Measured], place: int) -> Ratios | None:
    """Of the point at `place`, predicted by the others; None where it alone has something."""
    prediction = fit_model([*points[:place], *points[place + 1 :]]).predict(points[place].work)
    return None if prediction.unmeasured else _ratios(points[place], prediction)


def _ratios(point: Measured, prediction: Prediction) -> Ratios:
    steps, runs = point.work.steps, point.runs
    ttft, tpot = prediction.ttft.fitted_ms, prediction.tpot.fitted_ms
    total = prediction.total.fitted_ms
    return Ratios(
        ttft=tuple(run.ttft_ms / ttft for run in runs) if ttft else (),
        tpot=tuple(run.decode_ms / steps / tpot for run in runs) if steps and tpot else (),
        total=tuple(run.total_ms / total for run in runs) if total else (),
    )


def _between(seen: Ratios, apart: Ratios) -> Ratios:
    return Ratios(
        ttft=_mean(seen.ttft, apart.ttft),
        tpot=_mean(seen.tpot, apart.tpot),
        total=_mean(seen.total, apart.total),
    )


def _mean(seen: Several, apart: Several) -> Several:
    """The requests of `seen` around the geometric mean of the two errors of their median."""
    if not seen or not apart or not median(seen) or not median(apart):
        return seen
    near, far = math.log(median(seen)), math.log(median(apart))
    if near * far <= 0:
        return seen
    error = math.copysign(math.sqrt(near * far), near)
    return tuple(ratio * math.exp(error - near) for ratio in seen)


def _mape_percent(kinds: Sequence[Several]) -> float:
    """Mean over kinds of how far a prediction lies from the median of what was measured."""
    errors = [abs(1 / median(ratios) - 1) for ratios in kinds if ratios and median(ratios)]
    return 100 * fmean(errors) if errors else 0.0


def _missed_percent(kinds: Sequence[tuple[Several, Several]]) -> float:
    """Requests of a kind that was left out above a percentile of the spread of all others."""
    above, count = 0, 0
    for place, (_, apart) in enumerate(kinds):
        others = [*kinds[:place], *kinds[place + 1 :]]
        pool = [ratio for fair, _ in others for ratio in fair]
        if pool and apart:
            bound = spread_of(pool).percentile(MISSED_PERCENT)
            above += sum(ratio > bound for ratio in apart)
            count += len(apart)
    return 100 * above / count if count else 0.0
