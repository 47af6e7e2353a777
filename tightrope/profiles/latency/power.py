"""Fit what a board draws in each kind of stage to what its sensor said while requests ran.

A reading is a mean over a window of the past, and one kind of request follows another within it:
so each reading is told as shares of the kinds of stages in its window, and the watts of all kinds
are those that fit all readings best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Doubles, Flags
from tightrope.jetson.energy import Curve
from tightrope.latency import Stages
from tightrope.power import PowerModel, host_and_read_ms

GRID_S = 0.005
KINDS = 4
"""Idle, host, read, write."""
LEAST_READINGS = 200
RIDGE = 1e-3
"""Of the weight of the readings: kinds that hardly occur draw what all draw in the mean."""
STRETCH_S = 5.0
"""The error is told of such stretches: fitted to every other one, tried on those between."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A request, and when its answer was complete."""

    end_s: float
    stages: Stages


def fit_power(source: str, curve: Curve, watts: Doubles, ran: Sequence[Ran]) -> PowerModel | None:
    """watts: readings at the curve's times, [N]; None where too few fall between the requests."""
    if not ran or not len(curve.times):
        return None
    start, end = ran[0].end_s - ran[0].stages.total_ms / 1e3, ran[-1].end_s
    grid = np.arange(start - 1.0, end + 1.0, GRID_S)
    shares = _seen(_kinds(grid, ran), curve.lag_s)
    inside = (curve.times > start) & (curve.times < end)
    times, readings = curve.times[inside], watts[inside]
    if len(times) < LEAST_READINGS:
        return None
    rows = shares[np.clip(((times - grid[0]) / GRID_S).astype(int), 0, len(grid) - 1)]
    stretch = ((times - start) / STRETCH_S).astype(int)
    even = stretch % 2 == 0
    if even.all():
        return None
    tried = _watts(rows[even], readings[even])
    error = _error_percent(rows[~even] @ tried, readings[~even], stretch[~even])
    idle, host, read, write = _watts(rows, readings).tolist()
    return PowerModel(
        source=source,
        idle_w=idle,
        host_w=host,
        read_w=read,
        write_w=write,
        error_percent=error,
        readings=len(times),
    )


def _kinds(grid: Doubles, ran: Sequence[Ran]) -> Flags:
    """Which kind of stage each moment belongs to, [G,KINDS]."""
    kind = np.zeros(len(grid), np.int64)
    for each in ran:
        host, read = (ms / 1e3 for ms in host_and_read_ms(each.stages))
        begin = each.end_s - each.stages.total_ms / 1e3
        for number, until in enumerate((begin + host, begin + host + read, each.end_s), start=1):
            first, last = np.searchsorted(grid, (begin, until))
            kind[first:last] = number
            begin = until
    return np.asarray(kind[:, None] == np.arange(KINDS), np.bool_)


def _seen(kinds: Flags, lag_s: float) -> Doubles:
    """Shares of each kind in what is read at each moment, [G,KINDS]."""
    seen = kinds.astype(np.float64)
    size = round(lag_s / GRID_S)
    if size < 1:
        return seen
    # Two windows of one lag behind each other, as a sensor averages and then holds.
    window = np.convolve(np.full(size, 1 / size), np.full(size, 1 / size))
    padded = np.concatenate([np.repeat(seen[:1], len(window) - 1, axis=0), seen])
    columns = [np.convolve(padded[:, kind], window, "valid") for kind in range(KINDS)]
    return np.stack(columns, axis=1)


def _watts(rows: Doubles, readings: Doubles) -> Doubles:
    """Of each kind, none below 0."""
    mean = float(readings.mean())
    pull = RIDGE * len(rows)
    normal = rows.T @ rows + pull * np.eye(KINDS)
    found = np.linalg.solve(normal, rows.T @ readings + pull * mean)
    return np.asarray(np.maximum(found, 0.0), np.float64)


def _error_percent(fitted: Doubles, readings: Doubles, stretch: Doubles) -> float:
    """Mean error of the mean power of a stretch."""
    errors = [
        abs(fitted[stretch == each].mean() / readings[stretch == each].mean() - 1)
        for each in np.unique(stretch)
        if readings[stretch == each].mean() > 0
    ]
    return 100 * float(np.mean(errors)) if errors else 0.0
