"""A latency model of measured requests: every stage by least squares, on its own.

Coefficients are never negative and errors are relative: a stage of 2 ms counts as
much as one of 200.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import median
from typing import TypeVar

import numpy as np

from tightrope.arrays import Doubles
from tightrope.latency import (
    PERCENTS,
    Decoding,
    Hosting,
    LatencyModel,
    Prefilling,
    Preprocessing,
    Selecting,
    Spread,
    Stepping,
    TowerTime,
    Units,
    Workload,
)
from tightrope.runtime.answer import Timings

LEAST_MS = 0.05
"""Below it an error is no longer taken relative: that much a stage varies by itself."""
SEGMENTS = 3
"""Of the prefill's piecewise line."""
EXACT = Spread(mean=1.0, ratios=(1.0,) * len(PERCENTS))

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests of one kind: what they made the machine do, and what each of them took."""

    work: Workload
    runs: tuple[Timings, ...]

    def median_ms(self, time: Callable[[Timings], float]) -> float:
        """The median of what `time` says of each request."""
        return median(map(time, self.runs))


def host_ms(timings: Timings) -> float:
    """What the stages leave of the time to the first token."""
    stages = timings.image_ms + timings.vision_ms + timings.select_ms + timings.prefill_ms
    return max(timings.ttft_ms - stages, 0.0)


def nonnegative_fit(rows: Sequence[Units], times: Sequence[float]) -> Units:
    """Coefficients [K], none negative, of rows [P,K] with the least relative squared error.

    Of all sets of columns the one that fits best without a negative coefficient: that is the
    optimum, and columns that say nothing of their own get 0.
    """
    count = len(rows[0]) if rows else 0
    found = np.zeros(count)
    if not rows:
        return ()
    weight = 1 / np.maximum(np.array(times), LEAST_MS)
    columns = np.array(rows, np.float64) * weight[:, None]
    target = np.array(times) * weight
    scale = np.abs(columns).max(0)
    telling = np.flatnonzero(scale > 0)
    scaled = columns[:, telling] / scale[telling]
    best = float(target @ target)
    for size in range(1, len(telling) + 1):
        for chosen in itertools.combinations(range(len(telling)), size):
            solved = _solve(scaled[:, chosen], target)
            if solved is not None and solved[1] < best * (1 - 1e-6) - 1e-12:
                best = solved[1]
                found[:] = 0
                places = telling[list(chosen)]
                found[places] = solved[0] / scale[places]
    return tuple(found.tolist())


def _solve(columns: Doubles, target: Doubles) -> tuple[Doubles, float] | None:
    """Coefficients and squared error; None where one of them is negative."""
    solution: Doubles = np.linalg.lstsq(columns, target, rcond=None)[0].astype(np.float64)
    if (solution < 0).any():
        return None
    rest = target - columns @ solution
    return solution, float(rest @ rest)


def fit_model(points: Sequence[Measured]) -> LatencyModel:
    """The model of `points`, with no spread yet."""
    return LatencyModel(
        decoding=_decoding(points),
        preprocessing=_part(
            Preprocessing, points, Preprocessing.units, lambda run: run.preprocess_ms
        ),
        tower=_tower(points),
        selecting=_selecting(points),
        prefilling=_prefilling(points),
        stepping=_part(
            Stepping,
            [point for point in points if point.work.steps],
            Stepping.units,
            lambda run: run.decode_ms,
        ),
        hosting=_part(Hosting, points, Hosting.units, host_ms),
        ttft=EXACT,
        tpot=EXACT,
        total=EXACT,
    )


def spread_of(ratios: Sequence[float]) -> Spread:
    """The spread of measured over predicted times."""
    if not len(ratios):
        return EXACT
    values = np.percentile(np.array(ratios), PERCENTS)
    return Spread(mean=float(np.mean(ratios)), ratios=tuple(values.tolist()))


def with_spread(
    model: LatencyModel, ttft: Sequence[float], tpot: Sequence[float], total: Sequence[float]
) -> LatencyModel:
    """The model with the spreads of these ratios."""
    return replace(model, ttft=spread_of(ttft), tpot=spread_of(tpot), total=spread_of(total))


def _part(
    kind: type[Part],
    points: Sequence[Measured],
    units: Callable[[Workload], Units],
    time: Callable[[Timings], float],
) -> Part:
    """The stage `kind` of the points that have any of it."""
    rows = [(units(point.work), point.median_ms(time)) for point in points]
    rows = [(row, ms) for row, ms in rows if any(row)]
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    values = nonnegative_fit([row for row, _ in rows], [ms for _, ms in rows])
    return kind(**dict(zip(names, values or (0.0,) * len(names), strict=True)))


def _decoding(points: Sequence[Measured]) -> dict[str, Decoding]:
    """By format, of points whose images share one."""
    by_format: dict[str, list[Measured]] = {}
    for point in points:
        formats = {image.format for image in point.work.images}
        if len(formats) == 1:
            by_format.setdefault(formats.pop(), []).append(point)

    def units(work: Workload) -> Units:
        several = [Decoding.units(image) for image in work.images]
        return tuple(map(sum, zip(*several, strict=True)))

    return {
        name: _part(Decoding, these, units, lambda run: run.image_decode_ms)
        for name, these in sorted(by_format.items())
    }


def _tower(points: Sequence[Measured]) -> tuple[TowerTime, ...]:
    rows: dict[int, list[tuple[Units, float]]] = {}
    for point in points:
        new = sum(not image.known for image in point.work.images)
        if new and point.work.resolution is not None:
            ms = point.median_ms(lambda run: run.vision_ms)
            rows.setdefault(point.work.resolution, []).append(((float(new),), ms))
    return tuple(
        TowerTime(
            resolution=resolution,
            image_ms=nonnegative_fit([units for units, _ in these], [ms for _, ms in these])[0],
        )
        for resolution, these in sorted(rows.items())
    )


def _selecting(points: Sequence[Measured]) -> dict[str, Selecting]:
    methods = sorted({point.work.selector for point in points if point.work.selector is not None})
    return {
        method: _part(
            Selecting,
            [point for point in points if point.work.selector == method],
            Selecting.units,
            lambda run: run.select_ms,
        )
        for method in methods
    }


def _prefilling(points: Sequence[Measured]) -> Prefilling:
    knots = _knots([call.tokens for point in points for call in point.work.prefill])
    schedules = sorted({point.work.schedule for point in points if point.work.schedule is not None})
    rows = []
    for point in points:
        tokens, rest = Prefilling.units(point.work, knots)
        calls = float(len(point.work.prefill))
        more = [calls if point.work.schedule == name else 0.0 for name in schedules]
        rows.append((*tokens, *rest, *more))
    values = nonnegative_fit(
        rows, [point.median_ms(lambda run: run.prefill_ms) for point in points]
    )
    token_ms, values = values[: len(knots)], values[len(knots) :]
    call_ms, pair_ms, eviction_ms, given_up_ms, *more = values
    return Prefilling(
        knots=knots,
        token_ms=token_ms,
        call_ms=call_ms,
        pair_ms=pair_ms,
        eviction_ms=eviction_ms,
        given_up_ms=given_up_ms,
        schedules=dict(zip(schedules, more, strict=True)),
    )


def _knots(tokens: Sequence[float]) -> tuple[float, ...]:
    """0 and tokens of a call between which as many different lengths were measured."""
    lengths = sorted(set(tokens))
    places = [len(lengths) * i // SEGMENTS for i in range(1, SEGMENTS)]
    return (0.0, *sorted({lengths[place] for place in places if place} - {0.0}))
