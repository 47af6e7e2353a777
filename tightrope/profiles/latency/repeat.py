"""The energy of requests that are too short for a power sensor: the same ones, over and over."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tightrope.jetson.energy import SETTLED_LAGS
from tightrope.point import OperatingPoint
from tightrope.profiles.latency.measured import Repeated
from tightrope.profiles.measure import Request, measure

if TYPE_CHECKING:
    from tightrope.runtime.model import Model

REPEATED_LAGS = 12.0
"""So long it is done: what of it is read late is a fortieth."""
LEAST_SECONDS = 0.5
LEAST_REQUESTS = 3


def repeated(
    model: Model,
    requests: Sequence[Request],
    point: OperatingPoint,
    sleep: Callable[[float], None] = time.sleep,
) -> Repeated | None:
    """What requests draw at a point, asked in turn; None where no sensor tells it.

    sleep: waits so many seconds, until all that was drawn has been read.
    """
    telemetry = model.telemetry
    if telemetry is None or telemetry.record.source is None:
        return None
    telemetry.begin()
    lag = telemetry.sensors.lag_s
    least = max(LEAST_SECONDS, REPEATED_LAGS * lag)
    begin, done = telemetry.clock(), 0
    for request in itertools.cycle(requests):
        model.forget_images()
        model.forget_prefixes()
        measure(model, [replace(request, point=point)], total=1)
        done += 1
        end = telemetry.clock()
        if done >= LEAST_REQUESTS and end - begin >= least:
            break
    spent = telemetry.spent(begin, end, end, 0)
    if lag:
        sleep((SETTLED_LAGS + 1) * lag)
        spent = telemetry.record.between(begin, end)
    if spent.energy_j is None:
        return None
    return Repeated(
        requests=done,
        seconds=end - begin,
        energy_j=spent.energy_j / done,
        source=telemetry.record.source,
        held_back=spent.throttled,
    )
