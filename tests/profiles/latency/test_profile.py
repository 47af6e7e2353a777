"""A machine whose speed is scripted is measured, and its script is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tightrope.errors import InputError
from tightrope.profiles.latency.config import LatencyConfig
from tightrope.profiles.latency.points import MOST_POINTS
from tightrope.profiles.latency.profile import LEAST_RUNS, profile_latency
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model

Load = Callable[[str], Model]

RUNS = 4
"""Enough where every request of a kind takes the same time."""
DRAWN = 8
"""As many are drawn at random between those of a bundle that sees, not between texts alone."""


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightrope.profiles.latency.profile.MOST_RUNS", RUNS)
    monkeypatch.setattr("tightrope.profiles.latency.held_out.LEAST_DRAWN", DRAWN)


@pytest.fixture
def scripted(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    return module_of(Path(__file__).with_name("scripted.py"))


@pytest.mark.parametrize("name", ["llama", "llava"])
def test_the_script_is_found(loaded: Load, scripted: Any, name: str) -> None:
    model, clock = scripted.scripted(loaded(name))
    told: list[tuple[str, float]] = []
    record = profile_latency(
        model,
        LatencyConfig(),
        clock=clock,
        progress=lambda what, share: told.append((what, share)),
    )
    found = record.model
    assert found.stepping.token_ms == pytest.approx(scripted.STEP_MS, rel=0.01)
    assert found.stepping.slot_ms == pytest.approx(scripted.SLOT_MS, rel=0.05)
    assert found.prefilling.token_ms == pytest.approx(
        [scripted.TOKEN_MS] * len(found.prefilling.knots)
    )
    assert found.prefilling.call_ms == pytest.approx(scripted.CALL_MS)
    assert record.held_out.ttft_mape_percent < 1
    # The backend keeps what a schedule leaves behind: its contexts are longer than counted.
    assert record.held_out.tpot_mape_percent < 3
    assert record.key == latency_key(model.bundle, model.backend)
    assert record.points <= MOST_POINTS
    assert record.held_out.drawn >= DRAWN or (name == "llama" and record.held_out.drawn == 0)
    assert record.requests == record.points * RUNS
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[-1] <= 1
    if name == "llava":
        assert {row.resolution: row.image_ms for row in found.tower} == pytest.approx(
            scripted.IMAGE_MS
        )
        for method, ms in scripted.SELECT_MS.items():
            part = found.selecting[method]
            assert part.call_ms == pytest.approx(ms)
            assert (part.square_ms, part.pair_ms) == (0, 0)


def test_it_predicts_a_request_that_it_never_asked(loaded: Load, scripted: Any) -> None:
    model, clock = scripted.scripted(loaded("llama"))
    found = profile_latency(model, LatencyConfig(), clock=clock).model
    prompt = [7] * 171
    work = model.count(prompt, max_tokens=77).work
    answer = model.generate(prompt, max_tokens=77, ignore_eos=True)
    prediction = found.predict(work)
    assert prediction.ttft.fitted_ms == pytest.approx(answer.timings.ttft_ms, rel=0.01)
    assert prediction.total.fitted_ms == pytest.approx(answer.timings.total_ms, rel=0.01)


def test_a_slow_machine_measures_fewer_points_within_its_time(loaded: Load, scripted: Any) -> None:
    model, clock = scripted.scripted(loaded("llama"), slower=36)
    record = profile_latency(model, LatencyConfig(minutes=2), clock=clock)
    assert record.points < 11
    assert record.requests >= LEAST_RUNS * record.points
    assert record.seconds <= 2 * 60


def test_too_little_time_is_an_error_that_says_so(loaded: Load, scripted: Any) -> None:
    model, clock = scripted.scripted(loaded("llama"), slower=5000)
    with pytest.raises(InputError, match=r"minutes is 0\.5: \d kinds of request"):
        profile_latency(model, LatencyConfig(minutes=0.5), clock=clock)


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_that_are_none_are_refused(minutes: float) -> None:
    with pytest.raises(InputError, match="minutes is"):
        LatencyConfig(minutes=minutes)
    assert replace(LatencyConfig(), minutes=0.5).minutes == 0.5
