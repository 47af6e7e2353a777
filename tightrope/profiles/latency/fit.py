"""A latency model of measured requests: every stage by least squares, on its own.

Coefficients are never negative and errors are relative: a stage of 2 ms counts as
much as one of 200.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean, median
from typing import TypeVar

import numpy as np

from tightrope.arrays import Doubles, Flags
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
ENOUGH = 1e-10
"""Slope of the squared error at which no column is worth joining."""
TINY = 1e-14
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

    Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23: the column that would
    lessen the error most joins, those that turn negative leave, until none is left that would.
    """
    if not rows:
        return ()
    weight = 1 / np.maximum(np.array(times), LEAST_MS)
    columns = np.array(rows, np.float64) * weight[:, None]
    target = np.array(times) * weight
    scale = np.abs(columns).max(0)
    scaled = columns / np.where(scale > 0, scale, 1)
    found, joined = np.zeros(len(scale)), np.zeros(len(scale), bool)
    for _ in range(3 * len(scale)):
        gradient = np.where(joined, 0, scaled.T @ (target - scaled @ found))
        if gradient.max() <= ENOUGH:
            break
        joined[gradient.argmax()] = True
        found = _within(scaled, target, joined, found)
    return tuple((found / np.where(scale > 0, scale, 1)).tolist())


def _within(columns: Doubles, target: Doubles, joined: Flags, found: Doubles) -> Doubles:
    """The best of the joined columns; those that it would take below zero leave `joined`."""
    while True:
        wanted = np.zeros(len(found))
        wanted[joined] = np.linalg.lstsq(columns[:, joined], target, rcond=None)[0]
        negative = joined & (wanted <= 0)
        if not negative.any():
            return wanted
        step = (found[negative] / (found[negative] - wanted[negative] + TINY)).min()
        found = found + step * (wanted - found)
        joined &= ~negative | (found > TINY)
        found = np.where(joined, found, 0)


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
    # Of the next request so many of a hundred are below: with the usual quantiles, fewer.
    values = np.percentile(np.array(ratios), PERCENTS, method="weibull")
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
        several = [Decoding.units(image, work.resolution) for image in work.images]
        return tuple(map(sum, zip(*several, strict=True)))

    return {
        name: _part(Decoding, these, units, lambda run: run.image_decode_ms)
        for name, these in sorted(by_format.items())
    }


def _tower(points: Sequence[Measured]) -> tuple[TowerTime, ...]:
    rows: dict[int, list[tuple[float, float, float]]] = {}
    for point in points:
        new = sum(not image.known for image in point.work.images)
        if new and point.work.resolution is not None:
            ms = point.median_ms(lambda run: run.vision_ms)
            row = float(new), point.work.visual_tokens, ms
            rows.setdefault(point.work.resolution, []).append(row)
    return tuple(_tower_time(resolution, these) for resolution, these in sorted(rows.items()))


def _tower_time(resolution: int, rows: Sequence[tuple[float, float, float]]) -> TowerTime:
    """rows: images, visual tokens of each, milliseconds of all."""
    tokens = [each for _, each, _ in rows if each]
    mean = fmean(tokens) if len({*tokens}) > 1 else 0.0
    units = [(images * (each / mean if mean else 1.0),) for images, each, _ in rows]
    image_ms = nonnegative_fit(units, [ms for *_, ms in rows])[0]
    return TowerTime(resolution=resolution, image_ms=image_ms, visual_tokens=mean)


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
    works = [point.work for point in points]
    knots = _knots([call.tokens for work in works for call in work.prefill])
    schedules = sorted({work.schedule for work in works if work.schedule is not None})
    selectors = sorted({work.selector for work in works if work.selector is not None})
    rows = []
    for work in works:
        tokens, rest = Prefilling.units(work, knots)
        inside = [float(work.schedule == name) for name in schedules]
        behind = [float(work.selector == name) for name in selectors]
        rows.append((*tokens, *rest, *inside, *behind))
    values = iter(nonnegative_fit(rows, [point.median_ms(_prefill_ms) for point in points]))
    return Prefilling(
        knots=knots,
        token_ms=tuple(next(values) for _ in knots),
        call_ms=next(values),
        pair_ms=next(values),
        behind_tower_ms=next(values),
        eviction_ms=next(values),
        given_up_ms=next(values),
        schedules={name: next(values) for name in schedules},
        behind_selector_ms={name: next(values) for name in selectors},
    )


def _prefill_ms(timings: Timings) -> float:
    return timings.prefill_ms


def _knots(tokens: Sequence[float]) -> tuple[float, ...]:
    """0 and tokens of a call between which as many different lengths were measured."""
    lengths = sorted(set(tokens))
    places = [len(lengths) * i // SEGMENTS for i in range(1, SEGMENTS)]
    return (0.0, *sorted({lengths[place] for place in places if place} - {0.0}))
