from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tightrope.latency_file import write_latency
from tightrope.point import OperatingPoint
from tightrope.profiles.latency.measured import write_points
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model

N = 120
TYPES = ("colour", "count", "<b>where & when</b>")
SIDES = (28, 56, 84)


def point(resolution: int, keep: str | None = None, **more: Any) -> OperatingPoint:
    selector = None if keep is None else "visionzip"
    return OperatingPoint(resolution=resolution, selector=selector, keep=keep, **more)


RIGHT = {
    point(84): 110,
    point(56): 100,
    point(28): 60,
    point(84, "50%"): 104,
    point(84, "25%"): 70,
    point(84, thinking_tokens=0): 96,
}
"""Points, and how many of N questions they answer rightly."""
LEFT = point(56, "25%")
MS = {point(84): 90.0, point(56): 50.0, point(28): 30.0, point(84, "50%"): 70.0}
"""What points took that were measured from end to end; the others are predicted."""


@pytest.fixture
def model(loaded: Callable[[str], Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A bundle of which nothing was measured."""
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))
    real = loaded("llava")
    return Model(real.bundle, real.backend)


@pytest.fixture
def profiled(model: Model, frontier_files: Any, synthetic: Any) -> Model:
    """The same with both halves; one of its points left the race."""
    made, share = frontier_files.measured_point, frontier_files.share
    points = [made(each, share(right, N)) for each, right in RIGHT.items()]
    points.append(made(LEFT, share(8, 32), beaten_by=point(56)))
    types = {f"q{number:04}": TYPES[number % len(TYPES)] for number in range(N)}
    frontier_files.write_quality(model.bundle, points, types=types)
    key = latency_key(model.bundle, model.backend)
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    runs = [frontier_files.runs(each, ms) for each, ms in MS.items()]
    write_points(model.bundle, frontier_files.points_record(key, runs))
    return model
