"""What the planner takes at many deadlines is what it takes when it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.budget import Budget
from tightrope.errors import BudgetUnreachable, InputError
from tightrope.latency_file import LatencyRecord, write_latency
from tightrope.point import OperatingPoint
from tightrope.profiles.frontier.plans import DIGITS, Deadlines, grid, rounded_up
from tightrope.profiles.frontier.typical import Typical, typical
from tightrope.quality_file import Quality, find_quality
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model

SMALL, MIDDLE, LARGE = (OperatingPoint(resolution=side) for side in (28, 56, 84))


@pytest.fixture
def model(
    loaded: Callable[[str], Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frontier_files: Any,
    synthetic: Any,
) -> Model:
    """Three points, each better and slower; one that left the race."""
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))
    real = loaded("llava")
    opened = Model(real.bundle, real.backend)  # plans are learnt: others must not see them
    point, share = frontier_files.measured_point, frontier_files.share
    left = OperatingPoint(selector="visionzip", keep="25%", resolution=84)
    points = [
        point(LARGE, share(90, 100), tokens=9),
        point(MIDDLE, share(70, 100)),
        point(SMALL, share(40, 100)),
        point(left, share(9, 30), beaten_by=LARGE),
    ]
    frontier_files.write_quality(opened.bundle, points)
    key = latency_key(opened.bundle, opened.backend)
    write_latency(opened.bundle, replace(synthetic.RECORD, key=key))
    return opened


@pytest.fixture
def request_(model: Model) -> Typical:
    return typical(model, None, [])


@pytest.fixture
def record(model: Model, synthetic: Any) -> LatencyRecord:
    key = latency_key(model.bundle, model.backend)
    return replace(synthetic.RECORD, key=key)  # type: ignore[no-any-return]


@pytest.fixture
def quality(model: Model) -> Quality:
    found = find_quality(model.bundle, None)
    assert found is not None
    return found


@pytest.fixture
def deadlines(
    model: Model, request_: Typical, record: LatencyRecord, quality: Quality
) -> Deadlines:
    return Deadlines(model, request_, record, quality)


def test_a_request_is_planned_as_it_says(
    model: Model, deadlines: Deadlines, request_: Typical
) -> None:
    found = deadlines.plans()
    taken = {planned.plan.point for planned in found if planned.plan is not None}
    assert taken == {SMALL, MIDDLE, LARGE}
    for planned in found[::8]:
        budget = Budget(deadline_ms=planned.deadline_ms)
        try:
            count = model.count(request_.prompt, request_.images, max_tokens=16, budget=budget)
        except BudgetUnreachable:
            assert planned.plan is None
        else:
            assert planned.plan is not None and count.plan is not None
            assert planned.plan.point == count.plan.point
            assert planned.plan.total.p99_ms == pytest.approx(count.plan.total.p99_ms)


def test_every_point_is_taken_from_the_deadline_on_that_it_needs(deadlines: Deadlines) -> None:
    assert set(deadlines.needed_ms) == {SMALL, MIDDLE, LARGE}
    steps = deadlines.changes()
    assert steps == sorted(steps)
    taken = [deadlines.plan(step).plan for step in steps]
    assert [plan and plan.point for plan in taken] == [SMALL, SMALL, MIDDLE, LARGE]
    assert [plan and plan.fitting for plan in taken] == [0, 1, 2, 3]  # 80 of 100 keep the first
    assert deadlines.plan(steps[0] * 0.99).plan is None
    found = [planned.deadline_ms for planned in deadlines.plans()]
    assert set(steps) <= set(found) and found == sorted(set(found))
    assert found[0] < steps[0] and found[-1] > steps[-1]


def test_a_request_that_no_slots_hold_is_refused(
    model: Model, record: LatencyRecord, quality: Quality
) -> None:
    long = typical(model, "what is this ? " * 4000, [])
    with pytest.raises(InputError, match="the slots cannot hold the prompt"):
        Deadlines(model, long, record, quality)


@given(st.floats(1e-3, 1e7))
def test_a_deadline_is_rounded_to_what_the_point_still_keeps(ms: float) -> None:
    rounded = rounded_up(ms)
    assert ms <= rounded <= ms * (1 + 10.0 ** (2 - DIGITS))
    assert rounded == float(f"{rounded:.{DIGITS}g}")


def test_deadlines_reach_beyond_the_first_and_the_last_that_matter() -> None:
    found = grid([50.0, 200.0], steps=10)
    assert len(found) == 12 and found[0] < 50 and found[-1] > 200
    assert found == sorted(found) and {50.0, 200.0} < set(found)
