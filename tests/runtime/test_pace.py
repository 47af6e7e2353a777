"""How fast the machine is now: steps are followed, single requests are not, bursts are covered."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.runtime.pace import HEAT_SECONDS, REMEMBERED, Pace

SIGMA = 0.05


def drawn(count: int, seed: int, sigma: float = SIGMA) -> list[float]:
    return [float(ratio) for ratio in np.random.default_rng(seed).lognormal(0, sigma, count)]


@pytest.fixture
def pace(machines: ModuleType) -> Pace:
    """Of a file that was made of 400 requests with the usual noise."""
    return Pace(machines.spread_of(drawn(400, 99)))


def follow(pace: Pace, ratios: Sequence[float]) -> None:
    for ratio in ratios:
        pace.record(ratio)


@given(st.integers(0, 400), st.floats(0.2, 5))
def test_without_noise_the_pace_is_what_every_request_takes(
    machines: ModuleType, requests: int, usual: float
) -> None:
    pace = Pace(machines.spread_of([usual] * 20))
    follow(pace, [usual] * requests)
    assert pace.level == pytest.approx(usual)
    assert pace.factor(99) == pytest.approx(usual)


@given(st.integers(0, 300), st.sampled_from((0.5, 1.6, 2.0, 3.0)), st.integers(0, 2**31))
def test_a_step_is_followed_within_three_requests_and_back_within_three(
    machines: ModuleType, before: int, step: float, seed: int
) -> None:
    pace = Pace(machines.spread_of(drawn(400, 99)))
    follow(pace, drawn(before, seed))
    follow(pace, [step * ratio for ratio in drawn(3, seed + 1)])
    assert pace.level == pytest.approx(step, rel=0.2)
    levels = []
    for ratio in drawn(25, seed + 2):
        pace.record(step * ratio)
        levels.append(pace.level)
    # Two slow ones in a row look like a step: one pair in ten thousand is, for a moment.
    assert median(levels[-10:]) == pytest.approx(step, rel=0.1)
    follow(pace, drawn(3, seed + 3))
    assert pace.level == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize("sigma", [0.03, 0.05, 0.1])
@pytest.mark.parametrize(("percent", "least", "most"), [(50, 44, 56), (95, 92, 98), (99, 98, 100)])
def test_a_percentile_is_kept_by_so_many_requests(
    machines: ModuleType, sigma: float, percent: float, least: float, most: float
) -> None:
    pace = Pace(machines.spread_of(drawn(400, 99, sigma)))
    kept = []
    for ratio in drawn(4000, 5, sigma):
        kept.append(ratio <= pace.factor(percent))
        pace.record(ratio)
    assert least <= 100 * np.mean(kept) <= most


def test_noise_that_grew_is_learnt(pace: Pace) -> None:
    follow(pace, drawn(REMEMBERED, 6, 0.15))
    kept = []
    for ratio in drawn(2000, 7, 0.15):
        kept.append(ratio <= pace.factor(99))
        pace.record(ratio)
    assert np.mean(kept) >= 0.97


def test_a_single_slow_request_changes_nothing(pace: Pace) -> None:
    follow(pace, drawn(40, 8))
    before = pace.factor(99)
    for number in range(6):  # fewer than three in 200
        pace.record(3.0)
        assert pace.level == pytest.approx(1.0, abs=0.06)
        follow(pace, drawn(99, 10 + number))
        assert pace.factor(99) == pytest.approx(before, rel=0.06)


def test_a_load_that_comes_and_goes_widens_the_margin_until_it_is_covered(pace: Pace) -> None:
    rng = np.random.default_rng(11)
    kept = []
    for burst in range(80):
        load = 2.0 if burst % 2 else 1.0
        for ratio in drawn(int(rng.integers(4, 10)), 100 + burst):
            kept.append(load * ratio <= pace.factor(99))
            pace.record(load * ratio)
    assert np.mean(kept[:100]) < 0.97  # it came as a surprise
    assert np.mean(kept[-250:]) >= 0.97


def test_a_slow_drift_is_followed(pace: Pace) -> None:
    kept = []
    for at, ratio in enumerate(drawn(300, 12)):
        now = ratio * (1 + at / 300)  # twice as slow in the end
        kept.append(now <= pace.factor(99))
        pace.record(now)
    assert pace.level == pytest.approx(2.0, rel=0.1)
    assert np.mean(kept) >= 0.95


def test_percentiles_stand_in_order(pace: Pace) -> None:
    follow(pace, drawn(500, 13))
    factors = [pace.factor(percent) for percent in (0, 1, 5, 50, 95, 99, 100)]
    assert factors == sorted(factors)


def test_until_requests_came_the_file_says_it(machines: ModuleType) -> None:
    spread = machines.spread_of(drawn(400, 99))
    for percent in (50, 95):
        assert Pace(spread).factor(percent) == pytest.approx(spread.percentile(percent), rel=0.01)
    assert Pace(spread).factor(99) == pytest.approx(spread.percentile(99), rel=0.02)


def test_one_step_holds_nothing_back_for_the_next(machines: ModuleType) -> None:
    """Not even where the file knows of requests that took twice as long."""
    pace = Pace(machines.spread_of([*drawn(400, 99), 2.0, 2.1]))
    follow(pace, drawn(200, 14))
    before = pace.factor(99)
    follow(pace, [2 * ratio for ratio in drawn(25, 15)])
    assert pace.factor(99) == pytest.approx(2 * before, rel=0.12)
    follow(pace, drawn(25, 16))
    assert pace.factor(99) == pytest.approx(before, rel=0.12)


def test_a_load_that_comes_and_goes_is_not_expected_twice_over(pace: Pace) -> None:
    """While it is there, what is held back is for noise and not for another such load."""
    for burst in range(40):
        follow(pace, [(2.0 if burst % 2 else 1.0) * ratio for ratio in drawn(8, 200 + burst)])
    assert pace.level == pytest.approx(2.0, rel=0.1)
    assert pace.factor(99) < 2.0 * 1.3
    follow(pace, drawn(8, 300))
    assert pace.level == pytest.approx(1.0, rel=0.1)
    assert 2.0 < pace.factor(99) < 2.0 * 1.3


def earlier(ratios: Sequence[float], last_s: float) -> list[tuple[float, float]]:
    """One request a second, the last of them `last_s` ago."""
    return [(last_s + len(ratios) - 1 - at, ratio) for at, ratio in enumerate(ratios)]


def test_what_another_process_learnt_just_now_goes_on(machines: ModuleType, pace: Pace) -> None:
    ratios = [*drawn(100, 1), *(1.8 * ratio for ratio in drawn(40, 2))]
    pace.resume(earlier(ratios, 2.0))
    whole = Pace(machines.spread_of(drawn(400, 99)))
    follow(whole, ratios)
    assert pace.level == whole.level == pytest.approx(1.8, rel=0.1)
    assert pace.factor(99) == whole.factor(99)


def test_yesterdays_heat_is_over_and_its_noise_is_not(pace: Pace) -> None:
    ratios = [*drawn(160, 3, 0.15), *(1.8 * ratio for ratio in drawn(40, 4, 0.15))]
    pace.resume(earlier(ratios, 86_400.0))
    assert pace.level == pytest.approx(1.0, rel=0.1)
    assert pace.factor(99) > 1.3  # not the 1.12 of the file
    follow(pace, [1.8 * ratio for ratio in drawn(3, 5)])  # it is as hot today: found at once
    assert pace.level == pytest.approx(1.8, rel=0.15)


def test_a_board_that_is_always_slower_is_planned_for_at_once(pace: Pace) -> None:
    pace.resume(earlier([1.5 * ratio for ratio in drawn(200, 6)], 86_400.0))
    assert pace.level == pytest.approx(1.5, rel=0.05)
    follow(pace, drawn(3, 7))  # it was not for ever
    assert pace.level == pytest.approx(1.0, rel=0.1)


def test_that_it_was_faster_once_promises_nothing(pace: Pace) -> None:
    usual = pace.level
    pace.resume(earlier([0.6 * ratio for ratio in drawn(200, 8)], HEAT_SECONDS + 1))
    assert pace.level == usual
    pace.resume(earlier([0.6 * ratio for ratio in drawn(200, 8)], HEAT_SECONDS - 1))
    assert pace.level == pytest.approx(0.6, rel=0.05)


def test_requests_of_now_count_more_than_many_from_before_a_pause(pace: Pace) -> None:
    before = earlier([1.05 * ratio for ratio in drawn(100, 9, 0.01)], 10_000.0)
    pace.resume([*before, *earlier([0.98, 0.97, 0.98], 5.0)])
    assert pace.level == 0.98


def test_nothing_earlier_changes_nothing(machines: ModuleType, pace: Pace) -> None:
    pace.resume([])
    assert pace.factor(99) == Pace(machines.spread_of(drawn(400, 99))).factor(99)


def test_the_beginning_of_a_load_is_not_its_level(pace: Pace) -> None:
    """Two tell that it is there; the first of them waits for what begins beside it as well."""
    follow(pace, drawn(40, 17))
    follow(pace, [4.0, 2.0])
    assert pace.level == 2.0


def test_an_unsure_pace_is_told_by_the_next_request(machines: ModuleType) -> None:
    spread = machines.spread_of(drawn(400, 99))
    unsure, usual = Pace(spread, unsure=True), Pace(spread)
    assert [unsure.factor(percent) for percent in (50, 99)] == [
        usual.factor(percent) for percent in (50, 99)
    ]
    follow(unsure, [3.0])
    assert unsure.level == 3.0
    follow(unsure, drawn(3, 18))
    assert unsure.level == pytest.approx(1.0, rel=0.15)
