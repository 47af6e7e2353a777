"""Drift of requests against the latency file: means, intervals that hold, and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tightrope.latency import Stages
from tightrope.live_file import Agreement
from tightrope.profiles.frontier.drift import (
    LEAST,
    _student,
    agreed,
    drifts,
    interval_of_mean,
)
from tightrope.runtime.compared import Compared

FITTED = Stages(
    image_decode_ms=4.0,
    preprocess_ms=2.0,
    vision_ms=30.0,
    select_ms=0.0,
    prefill_ms=50.0,
    host_ms=1.0,
    decode_ms=100.0,
)


def made(speeds: Sequence[float], **stages: float) -> list[Compared]:
    """Requests whose stages of `stages` took that many times the fitted time, all else `speeds`."""
    found = []
    for at, speed in enumerate(speeds):
        took = {
            name: getattr(FITTED, name) * stages.get(name, speed)
            for name in Stages.__dataclass_fields__
        }
        found.append(Compared(time_s=float(at), took=Stages(**took), fitted=FITTED))
    return found


def noise(count: int, sigma: float, seed: int = 1) -> list[float]:
    return [float(value) for value in np.random.default_rng(seed).normal(1, sigma, count)]


def test_each_stage_is_told_beside_its_prediction() -> None:
    found = {drift.stage: drift for drift in drifts(made(noise(200, 0.05), vision_ms=1.5))}
    assert list(found)[:3] == ["image_decode", "preprocess", "vision"]
    vision, prefill, select = found["vision"], found["prefill"], found["select"]
    assert (vision.observed_ms, vision.predicted_ms, vision.ratio) == (45.0, 30.0, 1.5)
    assert (vision.difference_ms, vision.verdict) == (15.0, "slower")
    assert prefill.verdict == "as measured" and prefill.ratio == pytest.approx(1.0, abs=0.02)
    assert select.ratio is None and select.verdict == "as measured"
    assert found["ttft"].predicted_ms == 87.0 and found["total"].predicted_ms == 187.0
    assert found["ttft"].difference_ms == pytest.approx(15.0, abs=1.0)
    assert drifts(made([0.5] * 50))[-1].verdict == "faster"


def test_few_requests_tell_nothing() -> None:
    assert drifts([]) == ()
    assert {drift.verdict for drift in drifts(made([2.0] * (LEAST - 1)))} == {"too few"}
    assert drifts(made([2.0] * LEAST))[-1].verdict == "slower"


def test_the_interval_of_neighbours_that_are_alike_holds_the_mean() -> None:
    """A board that is warm for a while and cold for a while: naive intervals hold a third."""
    rng, held, naive = np.random.default_rng(3), 0, 0
    for _ in range(300):
        values, level = [], 0.0
        for _ in range(400):
            level = 0.9 * level + float(rng.normal())
            values.append(level)
        low, high = interval_of_mean(values) or (0.0, 0.0)
        held += low <= 0 <= high
        naive += abs(np.mean(values)) <= 1.96 * np.std(values) / 20
    assert naive < 0.6 * 300
    assert held >= 0.88 * 300


@pytest.mark.parametrize(("freedom", "quantile"), [(7, 2.3646), (11, 2.2010), (19, 2.0930)])
def test_students_quantile_is_the_tables(freedom: int, quantile: float) -> None:
    assert _student(freedom) == pytest.approx(quantile, rel=0.004)


def test_agreement_is_told_point_by_point() -> None:
    one = Agreement(point='{"resolution": 28}', same=True, token_agreement=0.5)
    other = replace(one, point="{}", token_agreement=1.0)
    rows = agreed([one, other, replace(one, same=False), other, other])
    assert [(row.point, row.answers, row.same, row.token_agreement) for row in rows] == [
        ("{}", 3, 1.0, 1.0),
        (one.point, 2, 0.5, 0.5),
    ]
    low, high = rows[1].interval
    assert 0 < low < 0.5 < high < 1
    assert agreed([]) == ()


def test_a_synthetic_models_own_times_do_not_drift(synthetic: ModuleType) -> None:
    model: Any = synthetic.MODEL
    work = synthetic.text(100, completion_tokens=8)
    fitted = model.stages(work)
    found = [Compared(time_s=0.0, took=fitted, fitted=fitted)] * 20
    assert {drift.verdict for drift in drifts(found)} == {"as measured"}
    assert found[0].ttft_ratio == found[0].total_ratio == 1.0
