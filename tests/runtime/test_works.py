"""What requests make the machine do is counted once, however often it is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tightrope as tr
from tightrope.latency import SourceImage
from tightrope.point import OperatingPoint
from tightrope.runtime import works
from tightrope.runtime.marks import UNCUT
from tightrope.runtime.model import Model
from tightrope.runtime.settings import resolve
from tightrope.runtime.workload import work_of

Find = Callable[[str], Path]
EVER = tr.Budget(deadline_ms=1e9)
POINTS = (
    OperatingPoint(),
    OperatingPoint(kv_budget=40, policy="h2o"),
    OperatingPoint(selector="uniform", keep="25%", resolution=84),
)


@settings(max_examples=40, deadline=None)
@given(
    num_ids=st.integers(1, 300),
    sides=st.lists(st.integers(20, 90), max_size=2),
    point=st.sampled_from(POINTS),
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=3),
)
def test_it_is_the_work_itself_however_long_the_answer(
    loaded: Callable[[str], Model], num_ids: int, sides: list[int], point: Any, lengths: list[int]
) -> None:
    parts = loaded("llava")._loaded
    under = resolve(point, parts.manifest, parts.baselines)
    images = [SourceImage(format="PNG", width=x, height=30, encoded_bytes=x) for x in sides]
    num_ids += len(images)
    found = works.Works(parts)
    for length in lengths:
        expected = work_of(parts, num_ids, images, under, length).work
        assert found.of(num_ids, images, under, length, UNCUT, None) == expected


def test_a_request_is_counted_once_and_one_like_it_not_again(
    planned: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned.generate("what?", max_tokens=2, budget=EVER)  # it warms up
    counts: list[int] = []

    def noted(loaded: Any, num_ids: int, *rest: Any) -> Any:
        counts.append(num_ids)
        return work_of(loaded, num_ids, *rest)

    monkeypatch.setattr(works, "work_of", noted)
    how: dict[str, Any]
    for how in ({"budget": EVER}, {}, {"point": POINTS[1]}):
        for most in (1, 0):
            counts.clear()
            answer = planned.generate("what is it ?", max_tokens=2, **how)
            assert len(counts) <= most and answer.prediction is not None
    expected = planned.count("what is it ?", max_tokens=5)
    longer = planned.generate("what is it ?", max_tokens=5)
    assert longer.prediction == expected.prediction and counts == []
    planned.generate("what is it there ?", max_tokens=5)
    assert len(counts) == 1
