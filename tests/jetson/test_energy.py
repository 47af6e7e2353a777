"""Energy of loads that are known, read through sensors that are late."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.arrays import Doubles
from tightrope.jetson.energy import SETTLED_LAGS, SHORTEST_LAGS
from tightrope.jetson.record import Record
from tightrope.jetson.sensors import INA3221_LAG_S
from tightrope.jetson.spent import Spent

LAG = INA3221_LAG_S
STEP = 0.001
"""Seconds between two values of what was drawn."""
IDLE_W = 5.0
BEGIN = 4.0
"""A load begins then."""


def block_by_block(drawn: Doubles) -> Doubles:
    """What a sensor says that averages blocks and shows the last whole one."""
    size = round(LAG / STEP)
    means = drawn[: len(drawn) // size * size].reshape(-1, size).mean(1)
    shown = np.repeat(np.concatenate([[drawn[0]], means[:-1]]), size)
    return np.concatenate([shown, np.full(len(drawn) - len(shown), means[-1])])


def running(drawn: Doubles) -> Doubles:
    """What a sensor says whose window always runs."""
    size = round(2 * LAG / STEP)
    sums = np.cumsum(np.concatenate([np.full(size, drawn[0]), drawn]))
    return np.asarray((sums[size:] - sums[:-size]) / size, np.float64)


KINDS = {"block by block": block_by_block, "running": running}


def recorded(drawn: Doubles, kind: Callable[[Doubles], Doubles], until: float) -> Record:
    """Its readings at 20 Hz until then."""
    record, read = Record("INA3221 VDD_IN", LAG), kind(drawn)
    for time_s in np.arange(0.0, until, 0.05):
        record.add_watts(float(time_s), float(read[round(time_s / STEP)]))
    return record


def load(seconds: float, watts: float, total: float = 30.0) -> Doubles:
    drawn = np.full(round(total / STEP), IDLE_W)
    drawn[round(BEGIN / STEP) : round((BEGIN + seconds) / STEP)] = watts
    return drawn


def measured(record: Record, seconds: float, **more: float) -> Spent:
    return record.between(BEGIN, BEGIN + seconds, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(seconds=st.floats(SHORTEST_LAGS * LAG + 0.01, 15.0), watts=st.floats(8.0, 60.0))
def test_the_energy_of_a_load_is_right_within_3_percent(
    kind: str, seconds: float, watts: float
) -> None:
    end = BEGIN + seconds
    record = recorded(load(seconds, watts), KINDS[kind], end + (SETTLED_LAGS + 1) * LAG)
    found = measured(record, seconds).energy_j
    assert found == pytest.approx(watts * seconds, rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_lag_taken_out_it_would_be_wrong(kind: str) -> None:
    record = recorded(load(2.0, 25.0), KINDS[kind], 8.0)
    curve, _ = record.curve()
    naive = curve.at(BEGIN + 2.0) - curve.at(BEGIN)
    assert naive < 0.92 * 50.0
    assert measured(record, 2.0).energy_j == pytest.approx(50.0, rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(seconds=st.floats(SHORTEST_LAGS * LAG + 0.01, 15.0), watts=st.floats(8.0, 60.0))
def test_at_its_end_the_tail_is_not_waited_for(kind: str, seconds: float, watts: float) -> None:
    record = recorded(load(seconds, watts), KINDS[kind], BEGIN + seconds)
    found = measured(record, seconds).energy_j
    assert found == pytest.approx(watts * seconds, rel=0.06)


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_loads_each_gets_its_own(kind: str) -> None:
    drawn = load(3.0, 12.0)
    drawn[round((BEGIN + 3.0) / STEP) : round((BEGIN + 6.0) / STEP)] = 30.0
    record = recorded(drawn, KINDS[kind], 15.0)
    assert measured(record, 3.0).energy_j == pytest.approx(36.0, rel=0.03)
    second = record.between(BEGIN + 3.0, BEGIN + 6.0)
    assert second.energy_j == pytest.approx(90.0, rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_short_loads_are_measured_by_repeating_them(kind: str) -> None:
    one, pause, times = 0.12, 0.03, 20
    drawn = np.full(30_000, IDLE_W)
    for turn in range(times):
        start = BEGIN + turn * (one + pause)
        drawn[round(start / STEP) : round((start + one) / STEP)] = 20.0
    seconds = times * (one + pause)
    record = recorded(drawn, KINDS[kind], 15.0)
    each = one * 20.0 + pause * IDLE_W
    found = measured(record, seconds).energy_j
    assert found is not None
    assert found / times == pytest.approx(each, rel=0.03)


def test_what_is_too_short_says_so() -> None:
    found = measured(recorded(load(0.2, 20.0), running, 10.0), 0.2)
    assert found.energy_j is None and found.source == "INA3221 VDD_IN"
    assert found.why == ("too short to measure: 200 ms, the sensor needs 1200 ms; repeat it")


def test_tokens_are_told_apart_from_what_comes_before_them() -> None:
    drawn = load(8.0, 30.0)
    drawn[round((BEGIN + 2.0) / STEP) : round((BEGIN + 8.0) / STEP)] = 12.0
    record = recorded(drawn, block_by_block, 20.0)
    found = measured(record, 8.0, first_token_s=BEGIN + 2.0, tokens=100)
    assert found.energy_j == pytest.approx(60.0 + 72.0, rel=0.03)
    assert found.token_j == pytest.approx(0.72, rel=0.03)
    few = measured(record, 8.0, first_token_s=BEGIN + 7.5, tokens=3)
    assert few.token_j is None and few.energy_j is not None


def test_a_sensor_that_was_gone_for_a_while_tells_nothing() -> None:
    record = Record("INA3221 VDD_IN", LAG)
    for time_s in [*np.arange(0.0, 5.0, 0.05), *np.arange(6.0, 20.0, 0.05)]:
        record.add_watts(float(time_s), 10.0 + 0.1 * (round(time_s * 20) % 3))
    for begin, end in ((3.0, 8.0), (-2.0, 3.0), (18.0, 25.0)):
        assert record.between(begin, end).why == ("the power sensor could not be read all the time")
    assert record.between(7.0, 15.0).energy_j == pytest.approx(80.8, rel=0.01)
    assert Record("INA3221 VDD_IN", LAG).between(0.0, 9.0).energy_j is None


def test_a_sensor_that_says_the_same_for_ever_is_not_believed() -> None:
    record = Record("INA3221 VDD_IN", LAG)
    for time_s in np.arange(0.0, 60.0, 0.05):
        record.add_watts(float(time_s), 7.5)
    assert record.between(50.0, 55.0).why == "the power sensor has said 7.5 W for 30 s"
    assert record.between(2.0, 10.0).energy_j == pytest.approx(60.0)  # not for so long yet


def test_a_counter_has_no_lag() -> None:
    record = Record("RAPL package-0, the processor alone")
    for time_s, joules in ((0.0, 0.0), (1.0, 10.0), (1.1, 15.0), (1.4, 16.0)):
        record.add_joules(time_s, joules)
    assert record.between(1.0, 1.1).energy_j == pytest.approx(5.0)
    assert record.between(1.0, 1.4).energy_j == pytest.approx(6.0)
    assert "too short" in (record.between(1.0, 1.005).why or "")


def test_without_a_sensor_heat_and_events_are_still_told() -> None:
    record = Record(None)
    record.add_heat(1.0, 71.0)
    record.add_heat(9.0, 99.0)
    record.add_throttled(0.0, ())
    record.add_throttled(1.0, ("gpu-throttle-alert",))
    record.add_throttled(2.0, ("gpu-throttle-alert", "cpu-throttle-alert"))
    record.add_throttled(3.0, ())
    for time_s, count in ((0.0, 5), (1.0, 5), (2.0, 8), (3.0, 8)):
        record.add_over_current(time_s, "oc3", count)
    found = record.between(0.5, 2.5)
    assert (found.energy_j, found.why, found.hottest_c) == (None, "no power sensor", 71.0)
    assert found.throttled == ("gpu-throttle-alert", "cpu-throttle-alert")
    assert found.over_current == 3 and found.held_back
    assert not record.between(4.0, 8.0).held_back
    assert (record.throttles, record.over_currents) == (2, 3)


def test_the_oldest_readings_leave() -> None:
    from tightrope.jetson.record import MOST_READINGS

    record = Record("INA3221 VDD_IN", LAG)
    for number in range(2 * MOST_READINGS + 10):
        record.add_watts(number * 0.05, 10.0 + number % 2)
    curve, watts = record.curve()
    assert len(curve.times) == len(watts) <= MOST_READINGS
    end = float(curve.times[-1])
    assert record.between(end - 10.0, end - 2.0).energy_j == pytest.approx(84.0, rel=0.01)
    assert record.between(1.0, 5.0).energy_j is None
    assert record.mean_watts(end - 60.0) == pytest.approx(10.5, rel=0.01)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.0, 500.0), min_size=2, max_size=50))
def test_energy_is_never_below_zero(watts: list[float]) -> None:
    record = Record("INA3221 VDD_IN", 0.0)
    for number, value in enumerate(watts):
        record.add_watts(number * 0.05, value)
    found = record.between(0.0, (len(watts) - 1) * 0.05)
    assert found.energy_j is not None and found.energy_j >= 0
