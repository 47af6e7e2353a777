"""What points take: of measured runs, and of answers of many lengths predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.latency import PERCENTS, Spread
from tightrope.point import OperatingPoint
from tightrope.power import PowerModel
from tightrope.profiles.frontier.took import measured, predicted


def test_what_was_measured_is_told_as_it_was(frontier_files: Any) -> None:
    found = frontier_files.runs(OperatingPoint(), 100.0)
    took = measured(found, {})
    assert (took.source, took.runs, took.goodput, took.energy_j) == ("measured", 20, None, None)
    assert took.total.p95_ms == pytest.approx(100 * (1 + 0.1 * 18.05 / 20))
    assert took.ttft.p50_ms == pytest.approx(0.6 * took.total.p50_ms)
    assert took.peak_memory_bytes == 200 << 20
    kept = measured(found, {"request_latency": 105.0}).goodput
    assert kept is not None and kept.good_request_count == 11


@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_answers_of_one_length_take_what_the_model_says(synthetic: Any, tokens: int) -> None:
    work = synthetic.text(300, completion_tokens=40)
    took = predicted(synthetic.MODEL, work, [tokens] * 7)
    expected = synthetic.MODEL.predict(synthetic.text(300, completion_tokens=tokens))
    for percent, ms in ((50, took.total.p50_ms), (95, took.total.p95_ms), (99, took.total.p99_ms)):
        assert ms == pytest.approx(expected.total.percentile_ms(percent), rel=2e-3)
    assert took.ttft.p99_ms == expected.ttft.percentile_ms(99)
    assert took.stages == expected.stages
    assert (took.itl is None) == (tokens == 1)
    assert (took.source, took.runs, took.peak_memory_bytes) == ("predicted", 0, None)


def test_long_answers_make_the_tail(synthetic: Any) -> None:
    work = synthetic.text(300, completion_tokens=200)
    short = predicted(synthetic.MODEL, work, [5] * 100)
    mixed = predicted(synthetic.MODEL, work, [5] * 90 + [200] * 10)
    assert mixed.total.p50_ms == pytest.approx(short.total.p50_ms, rel=0.02)
    assert mixed.total.p95_ms > short.total.p99_ms * 3
    assert mixed.ttft == short.ttft
    ten = (
        0.9 * short.stages.decode_ms
        + 0.1 * predicted(synthetic.MODEL, work, [200]).stages.decode_ms
    )
    assert mixed.stages.decode_ms == pytest.approx(ten)


@given(lengths=st.lists(st.integers(1, 120), min_size=1, max_size=12))
def test_a_mixture_has_the_percentiles_of_its_draws(synthetic: Any, lengths: list[int]) -> None:
    work = synthetic.text(300, completion_tokens=120)
    took = predicted(synthetic.MODEL, work, lengths)
    spread: Spread = synthetic.SPREAD
    draws = np.concatenate(
        [
            synthetic.MODEL.predict(synthetic.text(300, completion_tokens=length)).total.fitted_ms
            * np.interp(np.linspace(0, 100, 4001), PERCENTS, spread.ratios)
            for length in lengths
        ]
    )
    # The share of all draws below each figure is what it says, but for one step of the grid.
    for percent, ms in ((50, took.total.p50_ms), (95, took.total.p95_ms), (99, took.total.p99_ms)):
        below = (draws <= ms * 1.002).mean() * 100
        above = (draws <= ms * 0.998).mean() * 100
        assert above - 0.5 <= percent <= below + 0.5


def test_energy_is_predicted_where_power_was_measured(synthetic: Any) -> None:
    power = PowerModel(
        source="INA3221 VDD_IN",
        idle_w=4.0,
        host_w=6.0,
        read_w=20.0,
        write_w=10.0,
        error_percent=2.0,
        readings=2000,
    )
    work = synthetic.text(300, completion_tokens=40)
    took = predicted(synthetic.MODEL, work, [40], power)
    stages = took.stages
    expected = 6.0 * stages.host_ms + 20.0 * stages.prefill_ms + 10.0 * stages.decode_ms
    assert took.energy_j == pytest.approx(expected / 1e3)
    assert predicted(synthetic.MODEL, work, [40]).energy_j is None
