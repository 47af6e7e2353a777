"""What a request spent of a board: of the time in which it did not wait, and what held it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tightrope.bundle import Bundle
from tightrope.jetson.sensors import sensors_of
from tightrope.jetson.spent import SHARED
from tightrope.jetson.telemetry import Telemetry
from tightrope.live_file import LiveRequest
from tightrope.runtime.answer import Timings
from tightrope.runtime.live import Ring
from tightrope.runtime.model import Model
from tightrope.runtime.spending import Spending
from tightrope.runtime.stopwatch import Stopwatch

Find = Callable[[str], Path]
WATTS, STEP_S, CHUNK_S = 10.0, 0.5, 2.0


@pytest.fixture
def model(
    bundle: Find,
    machines: ModuleType,
    boards: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Model:
    """On a scripted clock; its board draws WATTS, and is held back from 1 to 2 s."""
    opened = Bundle.open(bundle("llama"))
    machine = machines.Machine(opened, [40], step_s=STEP_S, chunk_s=CHUNK_S)
    machine.now = 3.0
    found = Model(opened, machine, machine.clock)
    root = boards.laid_out(tmp_path, boards.files_of(boards.KITS["Orin Nano 8GB"]))
    telemetry = Telemetry(sensors_of(root), machine.clock)
    monkeypatch.setattr(telemetry, "wake", lambda: None)
    record = telemetry.record
    for number, time_s in enumerate(np.arange(0.0, 60.0, 0.05)):
        record.add_watts(float(time_s), WATTS + 0.1 * (number % 3 - 1))
    record.add_heat(4.0, 88.0)
    for time_s, names in ((4.0, ("gpu-throttle-alert",)), (5.0, ())):
        record.add_throttled(time_s, names)
    for time_s, count in ((0.0, 1), (4.5, 3)):
        record.add_over_current(time_s, "oc3", count)
    found._loaded.telemetry = telemetry
    return found


def test_an_answer_tells_energy_heat_and_what_held_it_back(model: Model) -> None:
    answer = model.generate("what?", max_tokens=9, ignore_eos=True)
    spent = answer.spent
    assert spent is not None
    assert answer.timings.total_ms == pytest.approx(1e3 * (CHUNK_S + 8 * STEP_S))
    assert answer.energy_j == spent.energy_j == pytest.approx(60.0, rel=0.01)
    assert spent.token_j == pytest.approx(WATTS * STEP_S, rel=0.01)
    assert spent.source == "INA3221 VDD_IN" and spent.why is None
    assert spent.hottest_c == 88.0 and spent.throttled == ("gpu-throttle-alert",)
    assert spent.over_current == 2 and spent.held_back
    told = answer.to_dict()["spent"]
    assert told["energy_j"] == answer.energy_j and told["throttled"]
    later = model.generate("what?", max_tokens=9, ignore_eos=True).spent
    assert later is not None and not later.held_back


def test_a_short_answer_says_that_it_is_too_short(model: Model) -> None:
    machine: Any = model.backend
    machine.chunk_s = 0.2
    answer = model.generate("what?", max_tokens=1, ignore_eos=True)
    assert answer.energy_j is None
    assert answer.spent is not None and answer.spent.why is not None
    assert answer.spent.why.startswith("too short to measure: 200 ms")


def test_without_sensors_nothing_is_told(model: Model) -> None:
    model._loaded.telemetry = None
    answer = model.generate("what?", max_tokens=3, ignore_eos=True)
    assert answer.spent is None and answer.energy_j is None


def test_a_request_that_is_kept_has_its_energy(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(Ring, "put", lambda ring, value: kept.append(value))
    model._keep_times(0.0)
    answer = model.generate("what?", max_tokens=9, ignore_eos=True)
    model.generate("what?", max_tokens=2, ignore_eos=True)  # behind it the first was kept
    first = kept[0]
    assert isinstance(first, LiveRequest)
    assert first.energy_j == answer.energy_j
    assert (first.throttled, first.over_current) == (("gpu-throttle-alert",), 2)


def test_waiting_does_not_count_and_giving_way_is_not_told_apart(model: Model) -> None:
    spending = Spending(model.telemetry)
    machine: Any = model.backend
    watch = Stopwatch(machine.clock)
    spending.runs(1000.0)
    asked: list[Any] = []
    telemetry: Any = model.telemetry
    real = telemetry.spent

    def noted(*given: Any) -> Any:
        asked.append(given)
        return real(*given)

    telemetry.spent = noted
    plain = Timings(queue_ms=1000.0, ttft_ms=3000.0, total_ms=8000.0)
    found = spending.spent(watch, plain, 10)
    assert asked[0] == (4.0, 11.0, 6.0, 10)
    assert found is not None and found.energy_j == pytest.approx(70.0, rel=0.01)
    shared = Timings(queue_ms=1500.0, ttft_ms=3000.0, total_ms=8000.0)
    found = spending.spent(watch, shared, 10)
    assert found is not None and (found.energy_j, found.why) == (None, SHARED)
    assert found.throttled == ("gpu-throttle-alert",)
    assert Spending(None).spent(watch, plain, 1) is None
