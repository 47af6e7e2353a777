"""A machine whose speed is scripted is measured, and its script is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tightrope.arrays import Array
from tightrope.errors import InputError
from tightrope.inputs.layout import visual_tokens
from tightrope.profiles.latency.config import LatencyConfig
from tightrope.profiles.latency.points import MOST_POINTS
from tightrope.profiles.latency.profile import LEAST_RUNS, profile_latency
from tightrope.runtime.backends.backend import VisualTokens
from tightrope.runtime.backends.null import NullBackend
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model

Load = Callable[[str], Model]

CALL_MS, TOKEN_MS, STEP_MS, SLOT_MS = 2.0, 0.5, 4.0, 0.01
IMAGE_MS = {28: 3.0, 56: 11.0, 84: 25.0}
SELECT_MS = {"divprune": 1.0, "flashvlm": 2.0, "visionzip": 0.5}


class Clock:
    """Seconds that pass only where the backend works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, ms: float) -> None:
        self.now += ms / 1e3


class Scripted(NullBackend):
    """Computes nothing, and takes a time that is known."""

    def __init__(self, real: Model, clock: Clock, slower: float = 1.0) -> None:
        super().__init__(real.bundle.manifest.dims, lambda call: 5)
        self._clock, self._slower, self._tower = clock, slower, real.bundle.manifest.tower

    def vision(self, inputs: Mapping[str, Array]) -> VisualTokens:
        images, _, side, _ = inputs["pixel_values"].shape
        self._clock.spend(images * IMAGE_MS[side] * self._slower)
        assert self._tower is not None
        tokens = visual_tokens(self._tower.layout(side))
        return VisualTokens(np.zeros((images, tokens, self._dims.hidden_size), np.float32), {})

    def select(self, method: str, *rest: Any) -> Any:
        self._clock.spend(SELECT_MS[method] * self._slower)
        return super().select(method, *rest)

    def prefill(self, slots: Any, call: Any, *rest: Any) -> Any:
        self._clock.spend((CALL_MS + TOKEN_MS * call.tokens_per_layer().mean()) * self._slower)
        return super().prefill(slots, call, *rest)

    def decode(self, slots: Any, call: Any) -> Any:
        self._clock.spend((STEP_MS + SLOT_MS * slots.occupied.mean()) * self._slower)
        return super().decode(slots, call)


RUNS = 4
"""Enough where every request of a kind takes the same time."""


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightrope.profiles.latency.profile.MOST_RUNS", RUNS)


def scripted(real: Model, slower: float = 1.0) -> tuple[Model, Clock]:
    clock = Clock()
    return Model(real.bundle, Scripted(real, clock, slower), clock), clock


@pytest.mark.parametrize("name", ["llama", "llava"])
def test_the_script_is_found(loaded: Load, name: str) -> None:
    model, clock = scripted(loaded(name))
    told: list[tuple[str, float]] = []
    record = profile_latency(
        model,
        LatencyConfig(),
        clock=clock,
        progress=lambda what, share: told.append((what, share)),
    )
    found = record.model
    assert found.stepping.token_ms == pytest.approx(STEP_MS, rel=0.01)
    assert found.stepping.slot_ms == pytest.approx(SLOT_MS, rel=0.05)
    assert found.prefilling.token_ms == pytest.approx([TOKEN_MS] * len(found.prefilling.knots))
    assert found.prefilling.call_ms == pytest.approx(CALL_MS)
    assert record.held_out.ttft_mape_percent < 1
    # The backend keeps what a schedule leaves behind: its contexts are longer than counted.
    assert record.held_out.tpot_mape_percent < 3
    assert record.key == latency_key(model.bundle, model.backend)
    assert record.points <= MOST_POINTS
    assert record.requests == record.points * RUNS
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[-1] <= 1
    if name == "llava":
        assert {row.resolution: row.image_ms for row in found.tower} == pytest.approx(IMAGE_MS)
        for method, ms in SELECT_MS.items():
            part = found.selecting[method]
            assert part.call_ms == pytest.approx(ms)
            assert (part.square_ms, part.pair_ms) == (0, 0)


def test_it_predicts_a_request_that_it_never_asked(loaded: Load) -> None:
    model, clock = scripted(loaded("llama"))
    found = profile_latency(model, LatencyConfig(), clock=clock).model
    prompt = [7] * 171
    work = model.count(prompt, max_tokens=77).work
    answer = model.generate(prompt, max_tokens=77, ignore_eos=True)
    prediction = found.predict(work)
    assert prediction.ttft.fitted_ms == pytest.approx(answer.timings.ttft_ms, rel=0.01)
    assert prediction.total.fitted_ms == pytest.approx(answer.timings.total_ms, rel=0.01)


def test_a_slow_machine_measures_fewer_points_within_its_time(loaded: Load) -> None:
    model, clock = scripted(loaded("llama"), slower=36)
    record = profile_latency(model, LatencyConfig(minutes=2), clock=clock)
    assert record.points < 11
    assert record.requests >= LEAST_RUNS * record.points
    assert record.seconds <= 2 * 60


def test_too_little_time_is_an_error_that_says_so(loaded: Load) -> None:
    model, clock = scripted(loaded("llama"), slower=5000)
    with pytest.raises(InputError, match=r"minutes is 0\.5: \d kinds of request"):
        profile_latency(model, LatencyConfig(minutes=0.5), clock=clock)


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_that_are_none_are_refused(minutes: float) -> None:
    with pytest.raises(InputError, match="minutes is"):
        LatencyConfig(minutes=minutes)
    assert replace(LatencyConfig(), minutes=0.5).minutes == 0.5
