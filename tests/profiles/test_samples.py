"""Figures of repeated measurements."""

from __future__ import annotations

import json
from statistics import stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import InputError
from tightrope.profiles.samples import PERCENTILES, Samples

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=40)


@given(values=VALUES, percent=st.sampled_from((0, *PERCENTILES, 100)))
def test_percentiles_are_linear_between_the_nearest_as_numpy_s(
    values: list[float], percent: float
) -> None:
    found = Samples(tuple(values), "ms").percentile(percent)
    assert found == pytest.approx(float(np.percentile(values, percent)), rel=1e-12, abs=1e-9)


def test_the_order_of_the_values_is_kept_and_does_not_matter() -> None:
    samples = Samples((4.0, 1.0, 3.0, 2.0), "ms")
    assert samples.values == (4.0, 1.0, 3.0, 2.0)
    assert (samples.count, samples.mean, samples.median) == (4, 2.5, 2.5)
    assert samples.stddev == pytest.approx(stdev([1.0, 2.0, 3.0, 4.0]))


def test_a_single_value_has_no_spread() -> None:
    alone = Samples((3.0,), "ms")
    assert alone.stddev == 0.0
    assert {alone.mean, alone.median, *(alone.percentile(p) for p in PERCENTILES)} == {3.0}


def test_the_figures_are_json_with_their_unit() -> None:
    told = json.loads(json.dumps(Samples((1.0, 2.0), "tokens/s").to_dict()))
    figures = {"p50": 1.5, "p90": 1.9, "p95": 1.95, "p99": 1.99}
    spread = {"count": 2, "mean": 1.5, "stddev": pytest.approx(0.5**0.5)}
    assert told == {"unit": "tokens/s", **spread, **figures}


def test_no_measurement_is_refused() -> None:
    with pytest.raises(InputError, match="values is empty"):
        Samples((), "ms")
