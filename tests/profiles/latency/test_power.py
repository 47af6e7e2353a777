"""Watts of each kind of stage are found through a sensor that is late, from many short requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tightrope.arrays import Doubles
from tightrope.jetson.record import Record
from tightrope.jetson.telemetry import Telemetry
from tightrope.latency import Stages
from tightrope.latency_file import LATENCY
from tightrope.point import OperatingPoint
from tightrope.power import PowerModel, check_power
from tightrope.profiles.latency.config import LatencyConfig
from tightrope.profiles.latency.measure_points import measure_points
from tightrope.profiles.latency.measured import DRAWN
from tightrope.profiles.latency.power import Ran, fit_power
from tightrope.profiles.latency.profile import profile_latency
from tightrope.profiles.measure import Request
from tightrope.runtime.model import Model

Load = Callable[[str], Model]
LAG, STEP = 0.3, 0.001
WATTS = np.array([5.0, 9.0, 24.0, 16.0])
"""Idle, host, read, write."""


def stages(host: float, read: float, write: float) -> Stages:
    return Stages(
        image_decode_ms=host / 2,
        preprocess_ms=host / 2,
        vision_ms=read / 2,
        select_ms=0.0,
        prefill_ms=read / 2,
        host_ms=0.0,
        decode_ms=write,
    )


def session(seconds: float = 90.0, seed: int = 1) -> tuple[list[Ran], Doubles]:
    """Requests of drawn lengths with pauses, and what was drawn meanwhile."""
    rng = np.random.default_rng(seed)
    drawn = np.full(round(seconds / STEP), WATTS[0])
    now, ran = 3.0, []
    while now < seconds - 4.0:
        lengths = rng.uniform((5, 20, 20), (40, 300, 400))
        begin = now
        for length, watts in zip(lengths, WATTS[1:], strict=True):
            drawn[round(now / STEP) : round((now + length / 1e3) / STEP)] = watts
            now += length / 1e3
        ran.append(Ran(now, stages(*(float(length) for length in lengths))))
        assert now > begin
        now += float(rng.uniform(0.005, 0.2))
    return ran, drawn


def recorded(drawn: Doubles, noise: float = 0.04) -> Record:
    """As an INA3221 says it: means of blocks, each held until the next is there, with noise."""
    size = round(LAG / STEP)
    means = drawn[: len(drawn) // size * size].reshape(-1, size).mean(1)
    shown = np.repeat(np.concatenate([[drawn[0]], means[:-1]]), size)
    rng, record = np.random.default_rng(2), Record("INA3221 VDD_IN", LAG)
    for time_s in np.arange(0.0, len(shown) * STEP - 0.05, 0.05):
        watts = shown[round(time_s / STEP)] + rng.normal(0, noise)
        record.add_watts(float(time_s), float(watts))
    return record


def test_the_watts_of_each_kind_of_stage_are_found() -> None:
    ran, drawn = session()
    found = fit_power("INA3221 VDD_IN", *recorded(drawn).curve(), ran)
    assert found is not None
    fitted = (found.idle_w, found.host_w, found.read_w, found.write_w)
    assert fitted[2:] == pytest.approx(WATTS[2:], rel=0.05)
    assert fitted[0] == pytest.approx(WATTS[0], rel=0.3)
    assert found.error_percent < 4
    assert found.readings > 1500


def test_the_energy_of_all_requests_is_right_within_3_percent() -> None:
    ran, drawn = session()
    found = fit_power("INA3221 VDD_IN", *recorded(drawn).curve(), ran)
    assert found is not None
    told = sum(found.energy_j(each.stages) for each in ran)
    busy = sum(
        float(
            drawn[round((each.end_s - each.stages.total_ms / 1e3) / STEP) :][
                : round(each.stages.total_ms)
            ].sum()
        )
        * STEP
        for each in ran
    )
    assert told == pytest.approx(busy, rel=0.03)


def test_too_few_readings_make_no_model() -> None:
    ran, drawn = session(12.0)
    curve, watts = recorded(drawn).curve()
    assert fit_power("x", curve, watts, ran) is None
    assert fit_power("x", curve, watts, []) is None
    assert fit_power("x", *Record("x").curve(), ran) is None


def test_a_kind_that_never_occurs_draws_what_all_draw() -> None:
    rng = np.random.default_rng(3)
    ran, now = [], 3.0
    while now < 60.0:
        took = float(rng.uniform(50, 300))
        now += took / 1e3
        ran.append(Ran(now, stages(0.0, took, 0.0)))
    drawn = np.full(70_000, 5.0)
    drawn[3000 : round(now * 1000)] = 20.0
    found = fit_power("x", *recorded(drawn).curve(), ran)
    assert found is not None and found.read_w == pytest.approx(20.0, rel=0.03)
    assert 10 < found.write_w < 25


@pytest.mark.parametrize(
    "wrong", [{"idle_w": -1.0}, {"read_w": float("inf")}, {"error_percent": float("nan")}]
)
def test_what_no_fit_gives_is_refused(wrong: dict[str, float], synthetic: ModuleType) -> None:
    model = PowerModel(
        source="x",
        idle_w=1.0,
        host_w=1.0,
        read_w=1.0,
        write_w=1.0,
        error_percent=1.0,
        readings=9,
    )
    check_power(model)
    with pytest.raises(ValueError):
        check_power(replace(model, **wrong))  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        LATENCY.check(replace(synthetic.RECORD, power=replace(model, readings=0)))


BUSY_W = 20.0


@pytest.fixture
def metered(
    loaded: Load,
    module_of: Callable[[Path], ModuleType],
    boards: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Model, Any, Telemetry]:
    """A scripted machine whose board draws BUSY_W while it works, and its telemetry."""
    from tightrope.jetson.sensors import sensors_of

    scripted = module_of(Path(__file__).with_name("scripted.py"))
    model, clock = scripted.scripted(loaded("llava"))
    root = boards.laid_out(tmp_path, boards.files_of(boards.KITS["Orin Nano 8GB"]))
    telemetry = Telemetry(sensors_of(root), clock)
    monkeypatch.setattr(telemetry, "wake", lambda: None)
    model._loaded.telemetry = telemetry
    spend, due = clock.spend, [0.0]

    def metered_spend(ms: float) -> None:
        until = clock.now + ms / 1e3
        while due[0] < until:
            wobble = 0.1 * (round(due[0] * 20) % 3 - 1)
            telemetry.record.add_watts(due[0], BUSY_W + wobble)
            due[0] += 0.05
        spend(ms)

    clock.spend = metered_spend
    return model, clock, telemetry


def test_points_that_are_too_short_are_repeated(
    metered: tuple[Model, Any, Telemetry], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, clock, _ = metered
    from tightrope.profiles.latency import repeat

    monkeypatch.setattr(repeat.repeated, "__defaults__", (lambda s: clock.spend(1e3 * s),))
    request = Request(
        name="q",
        prompt="what is it ?",
        images=[np.full((40, 60, 3), 90, np.uint8)],
        max_tokens=5,
        ignore_eos=True,
    )
    points = [OperatingPoint(), OperatingPoint(resolution=28)]
    found = measure_points(model, [request], points, DRAWN, clock=clock)
    for each in found.points:
        assert all(run.energy_j is None for run in each.runs)
        assert each.repeated is not None and each.repeated.requests > 10
        assert each.repeated.source == "INA3221 VDD_IN"
        assert each.energy_j == pytest.approx(BUSY_W * each.total.median / 1e3, rel=0.03)
    large, small = found.points
    assert (large.energy_j or 0) > 1.2 * (small.energy_j or 0)


def test_a_latency_file_says_what_the_board_drew_and_what_held_it_back(
    metered: tuple[Model, Any, Telemetry],
) -> None:
    model, clock, telemetry = metered
    telemetry.record.add_throttled(1.0, ("gpu-throttle-alert",))
    telemetry.record.add_over_current(0.0, "oc3", 0)
    telemetry.record.add_over_current(2.0, "oc3", 4)
    record = profile_latency(model, LatencyConfig(minutes=1), clock=clock)
    assert record.held_back == ("gpu-throttle-alert", "4 over-current events")
    power = record.power
    assert power is not None and power.source == "INA3221 VDD_IN"
    assert (power.read_w, power.write_w) == pytest.approx((BUSY_W, BUSY_W), rel=0.02)
    assert power.error_percent < 2
