"""Doing once what is only done once, so that no deadline pays for it.

Graphs are loaded when they are first called, and their memory is taken then: a first request may
take three times as long as the next.
"""

from __future__ import annotations

import numpy as np

from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import Options
from tightrope.runtime.planner import Planner
from tightrope.runtime.planners import planner_of
from tightrope.runtime.stream import start


def get_ready(loaded: Loaded, options: Options) -> None:
    """What a request with these options needs before its clock starts.

    Raises ProfileError for a budget where no latency was measured, and for an unknown task.
    """
    if options.budget is not None:
        warm_up(loaded, planner_of(loaded, options.budget.task))


def warm_up(loaded: Loaded, planner: Planner) -> None:
    """Ask once at each resolution with each selector, with and without a KV budget."""
    with planner.warming:
        if not planner.warm:
            _call_all(loaded, planner.points)
        planner.warm = True


def _call_all(loaded: Loaded, points: list[OperatingPoint]) -> None:
    image = [] if loaded.vision is None else [np.zeros((32, 32, 3), np.uint8)]
    for point in _distinct(points):
        try:
            options = Options(max_tokens=3, point=point, ignore_eos=True)
            start(loaded, "?", image, options, trial=True).answer()
        except InputError:  # what cannot hold a short question is not warmed
            continue


def _distinct(points: list[OperatingPoint]) -> list[OperatingPoint]:
    """One for each graph and resolution; of those that differ in keep alone, the first."""
    kinds = {(point.resolution, point.selector, point.kv_budget is None): point for point in points}
    return list(kinds.values())
