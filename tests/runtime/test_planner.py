"""What is chosen for a budget, what is refused, and what is said of it."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tightrope.budget import Budget
from tightrope.bundle import Bundle
from tightrope.errors import BudgetUnreachable, InputError, ProfileError
from tightrope.latency import SourceImage, Stages, TowerTime
from tightrope.latency_file import LatencyRecord, latency_file, write_latency
from tightrope.point import OperatingPoint
from tightrope.quality_file import Quality
from tightrope.runtime.candidates import KEEPS, assumed_points, candidate_of
from tightrope.runtime.key import latency_key
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.model import Model
from tightrope.runtime.plan import Asked, why
from tightrope.runtime.planner import OUTDATED_S, OWN_POINTS, Planner
from tightrope.runtime.preference import SETTLED
from tightrope.runtime.settings import resolve
from tightrope.runtime.waiting import IDLE, Load
from tightrope.runtime.workload import work_of

Find = Callable[[str], Path]
PNG = SourceImage(format="PNG", width=100, height=100, encoded_bytes=5000)
QUESTIONS = 200


def point(resolution: int, keep: str | None = None, **more: Any) -> OperatingPoint:
    selector = None if keep is None else "divprune"
    return OperatingPoint(resolution=resolution, selector=selector, keep=keep, **more)


SMALL, MIDDLE, LARGE = point(28), point(56), point(84)


def scores(right: int, seed: int = 0) -> list[float]:
    """Of QUESTIONS, so many right, the same ones more as there are more of them."""
    order = np.random.default_rng(seed).permutation(QUESTIONS)
    return [float(order[number] < right) for number in range(QUESTIONS)]


@pytest.fixture(scope="session")
def parts(bundle: Find, machines: ModuleType) -> Loaded:
    opened = Bundle.open(bundle("llava"))
    machine = machines.Machine(opened, [40])
    return Loaded(opened, machine, machine.clock)


@pytest.fixture
def record(machines: ModuleType, synthetic: ModuleType) -> LatencyRecord:
    """Of a machine that takes what the file says, 5 % more or less; larger pictures take longer."""
    sizes = ((28, 10.0), (56, 40.0), (84, 100.0))
    tower = tuple(TowerTime(resolution=side, image_ms=ms) for side, ms in sizes)
    model = replace(machines.steady(synthetic.MODEL, 0.05), tower=tower)
    return replace(synthetic.RECORD, model=model)  # type: ignore[no-any-return]


@pytest.fixture
def make(parts: Loaded, record: LatencyRecord) -> Callable[..., Planner]:
    """`make(quality)`: a planner on that machine."""
    return lambda quality=None: Planner(parts, record, quality)


@pytest.fixture
def three(machines: ModuleType) -> Quality:
    """Three points, each clearly better than the one before and slower."""
    return machines.quality_of(  # type: ignore[no-any-return]
        {SMALL: scores(80), MIDDLE: scores(130), LARGE: scores(180)}
    )


def asked(deadline_ms: float | None = None, **more: Any) -> Asked:
    limits = {name: more.pop(name) for name in list(more) if name in Budget.__slots__}
    ids = tuple(range(more.pop("num_ids", 30)))
    usual: dict[str, Any] = {"token_ids": ids, "images": (PNG,), "max_tokens": 16}
    return Asked(budget=Budget(deadline_ms=deadline_ms, **limits), **(usual | more))


def late_ms(planner: Planner, at: OperatingPoint, **more: Any) -> float:
    """The p99 of a point."""
    plan = planner.choose(asked(1e9, point=at, **more)).plan
    return plan.total.p99_ms


def barely_ms(planner: Planner, at: OperatingPoint, **more: Any) -> float:
    """The p80 of a point: with less, nothing is admitted."""
    pace = planner.paces.total
    return late_ms(planner, at, **more) * pace.factor(90) / pace.factor(99)


def test_the_best_point_that_fits_is_taken(make: Callable[..., Planner], three: Quality) -> None:
    planner = make(three)
    limits = [late_ms(planner, at) for at in (SMALL, MIDDLE, LARGE)]
    assert limits == sorted(limits) and limits[0] < limits[2]
    for at, limit, above in zip((SMALL, MIDDLE, LARGE), limits, [*limits[1:], 1e6], strict=True):
        for deadline in (limit * 1.001, above * 0.999):
            plan = make(three).choose(asked(deadline)).plan
            assert plan.point == at
            assert plan.total.p99_ms <= deadline
            assert not plan.best_effort


def test_what_a_plan_says(make: Callable[..., Planner], three: Quality) -> None:
    planner = make(three)
    limit = late_ms(planner, MIDDLE)
    plan = make(three).choose(asked(limit * 1.001)).plan
    assert (plan.quality, plan.quality_source, plan.task) == (0.65, "measured", "mix")
    assert (plan.fitting, plan.alike, plan.points) == (2, 1, 3)
    assert plan.completion_tokens == 4  # measured, below max_tokens
    assert plan.speed == 1.0 and plan.waiting_ms == 0.0
    assert plan.ttft.p50_ms < plan.ttft.p95_ms < plan.ttft.p99_ms
    assert plan.total.p50_ms < plan.total.p95_ms < plan.total.p99_ms == pytest.approx(limit)
    assert plan.ttft.p50_ms < plan.total.p50_ms


def test_of_points_that_are_as_good_the_fastest_is_taken(
    make: Callable[..., Planner], machines: ModuleType
) -> None:
    quality = machines.quality_of({LARGE: scores(150), SMALL: scores(149), MIDDLE: scores(100)})
    plan = make(quality).choose(asked(1e6)).plan
    assert plan.point == SMALL
    assert (plan.fitting, plan.alike) == (3, 2)


def test_a_point_that_was_beaten_is_not_chosen_from(
    make: Callable[..., Planner], machines: ModuleType
) -> None:
    quality = machines.quality_of(
        {SMALL: scores(80), MIDDLE: scores(130), LARGE: scores(180)}, beaten={LARGE: MIDDLE}
    )
    planner = make(quality)
    assert planner.points == [SMALL, MIDDLE]
    assert planner.choose(asked(1e6)).plan.point == MIDDLE


def test_a_quality_file_without_a_measured_point_is_refused(
    make: Callable[..., Planner], machines: ModuleType
) -> None:
    nothing: list[dict[OperatingPoint, list[float]]] = [{}, {SMALL: []}]
    for points in nothing:
        with pytest.raises(ProfileError, match="no point was measured by task 'mix' yet"):
            make(machines.quality_of(points))


def test_a_point_without_an_answer_yet_is_left_out(
    make: Callable[..., Planner], machines: ModuleType
) -> None:
    assert make(machines.quality_of({SMALL: scores(80), LARGE: []})).points == [SMALL]


def test_below_the_fastest_point_nothing_runs(make: Callable[..., Planner], three: Quality) -> None:
    planner = make(three)
    fastest = barely_ms(planner, SMALL)
    with pytest.raises(BudgetUnreachable) as caught:
        make(three).choose(asked(fastest * 0.999))
    assert caught.value.fastest_ms == pytest.approx(fastest)
    text = str(caught.value)
    assert text.startswith(
        f"deadline {fastest * 0.999:g} ms cannot be met: the fastest of 3 points"
    )
    assert f"takes {fastest:.0f} ms for 4 tokens" in text
    assert "in 90 of 100 requests" in text


def test_a_deadline_that_is_likely_met_is_not_refused(
    make: Callable[..., Planner], three: Quality
) -> None:
    planner = make(three)
    surely, barely = late_ms(planner, SMALL), barely_ms(planner, SMALL)
    assert barely < surely
    for deadline in (barely * 1.001, surely * 0.999):
        plan = make(three).choose(asked(deadline)).plan
        assert (plan.point, plan.fitting, plan.best_effort) == (SMALL, 0, False)
        assert plan.total.p99_ms > deadline
        assert "in 90 of 100 requests" in why(plan)
        with pytest.raises(BudgetUnreachable, match="in 99 of 100 requests"):
            make(three).choose(asked(deadline), Load(busy_ms=1.0))  # others want the device too
    assert make(three).choose(asked(surely * 1.001)).plan.fitting == 1


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_longest_answer_that_could_be_met_is_told(
    rows: int, measured: bool, make: Callable[..., Planner], machines: ModuleType
) -> None:
    quality = machines.quality_of({SMALL: scores(9), LARGE: scores(99)}, tokens=400)
    planner = make(quality if measured else None)
    for deadline in (60.0, 150.0, 333.0):
        budget: dict[str, Any] = {"rows": rows}
        with pytest.raises(BudgetUnreachable) as caught:
            planner.choose(asked(deadline, max_tokens=300, **budget))
        longest = int(str(caught.value).rpartition("max_tokens of ")[2].split()[0])
        assert 1 <= longest < 300
        assert barely_ms(planner, SMALL, max_tokens=longest, **budget) <= deadline
        planner.choose(asked(deadline, max_tokens=longest, **budget))
        with pytest.raises(BudgetUnreachable):
            planner.choose(asked(deadline, max_tokens=longest + 1, **budget))


def test_no_length_is_told_where_none_could_be_met(make: Callable[..., Planner]) -> None:
    for budget in (asked(1.0), asked(first_token_ms=1.0)):
        with pytest.raises(BudgetUnreachable) as caught:
            make().choose(budget)
        assert "max_tokens" not in str(caught.value)
        assert "first token 1 ms" in str(caught.value) or "deadline 1 ms" in str(caught.value)


def test_the_best_effort_takes_the_fastest_and_says_so(
    make: Callable[..., Planner], three: Quality
) -> None:
    plan = make(three).choose(asked(1.0, if_unreachable="best_effort")).plan
    assert plan.point == SMALL and plan.best_effort
    assert (plan.fitting, plan.points) == (0, 3)


def test_a_least_quality_is_kept_at_any_price(make: Callable[..., Planner], three: Quality) -> None:
    planner = make(three)
    assert planner.choose(asked(min_quality=0.6)).plan.point == LARGE
    deadline = late_ms(planner, MIDDLE) * 1.001
    assert planner.choose(asked(deadline, min_quality=0.6)).plan.point == MIDDLE
    for effort in ("refuse", "best_effort"):
        with pytest.raises(
            BudgetUnreachable, match=r"min_quality 0\.95.*best measured.*0\.900"
        ) as e:
            planner.choose(asked(deadline, min_quality=0.95, if_unreachable=effort))
        assert e.value.fastest_ms is None
    # The best effort is made among those that are good enough.
    cheapest = planner.choose(asked(1.0, min_quality=0.6, if_unreachable="best_effort")).plan
    assert cheapest.point == MIDDLE and cheapest.best_effort


def test_a_least_quality_needs_a_measured_one(make: Callable[..., Planner]) -> None:
    with pytest.raises(ProfileError, match="no quality was measured"):
        make().choose(asked(1e6, min_quality=0.5))


def test_a_callers_own_point_must_be_good_enough_as_well(
    make: Callable[..., Planner], three: Quality
) -> None:
    planner = make(three)
    assert planner.choose(asked(1e6, min_quality=0.6, point=MIDDLE)).plan.point == MIDDLE
    for unfit in (SMALL, point(56, "50%")):  # too bad, and unknown
        with pytest.raises(BudgetUnreachable):
            planner.choose(asked(1e6, min_quality=0.6, point=unfit))


def test_energy_is_refused_while_nobody_measured_it(make: Callable[..., Planner]) -> None:
    with pytest.raises(ProfileError, match="energy_j is 3"):
        make().choose(asked(1e6, energy_j=3))


def test_a_first_token_has_a_limit_of_its_own(make: Callable[..., Planner], three: Quality) -> None:
    planner = make(three)
    firsts = [
        planner.choose(asked(1e9, point=at)).plan.ttft.p99_ms for at in (SMALL, MIDDLE, LARGE)
    ]
    assert planner.choose(asked(first_token_ms=firsts[1] * 1.001)).plan.point == MIDDLE
    assert planner.choose(asked(1e6, first_token_ms=firsts[0] * 1.001)).plan.point == SMALL
    with pytest.raises(BudgetUnreachable, match=r"deadline 1e\+06 ms and first token"):
        planner.choose(asked(1e6, first_token_ms=firsts[0] * 0.98))


def test_a_callers_own_point_is_planned_for(make: Callable[..., Planner], three: Quality) -> None:
    planner = make(three)
    own = point(84, "50%")
    plan = planner.choose(asked(1e6, point=own)).plan
    assert (plan.point, plan.quality, plan.quality_source) == (own, None, "assumed")
    assert plan.completion_tokens == 16  # nothing is known of its answers
    assert (plan.points, plan.fitting) == (1, 1)
    with pytest.raises(BudgetUnreachable, match="the fastest of 1 points"):
        planner.choose(asked(5.0, point=own))
    assert planner.choose(asked(1e6)).plan.point == LARGE  # and it is none of the others
    assert planner.points == [SMALL, MIDDLE, LARGE]


def test_callers_own_points_do_not_pile_up(make: Callable[..., Planner], three: Quality) -> None:
    planner = make(three)
    for budget in range(1, 3 * OWN_POINTS):
        own = OperatingPoint(kv_budget=40 + budget)
        assert planner.choose(asked(1e6, point=own)).plan.point == own
        assert planner.choose(asked(1e6, point=MIDDLE)).plan.point == MIDDLE
    assert len(planner._all) <= 3 + OWN_POINTS


def test_several_answers_take_their_time(make: Callable[..., Planner], three: Quality) -> None:
    planner = make(three)
    one, four = (planner.choose(asked(1e6, rows=rows)) for rows in (1, 4))
    assert four.plan.total.p50_ms > one.plan.total.p50_ms
    assert four.plan.ttft == one.plan.ttft
    assert four.token_ms == pytest.approx(4 * one.token_ms)
    deadline = one.plan.total.p99_ms * 1.001
    assert make(three).choose(asked(deadline)).plan.point == LARGE
    assert make(three).choose(asked(deadline, rows=4)).plan.point != LARGE


def test_requests_that_wait_count(make: Callable[..., Planner], three: Quality) -> None:
    planner = make(three)
    deadline = late_ms(planner, LARGE) * 1.001
    assert planner.choose(asked(deadline)).plan.point == LARGE

    plan = planner.choose(asked(deadline), Load(waiting_ms=20.0)).plan
    assert plan.waiting_ms == 20.0 and plan.point != LARGE and plan.total.p99_ms <= deadline
    with pytest.raises(BudgetUnreachable, match="other requests are in its way") as busy:
        planner.choose(asked(deadline), Load(waiting_ms=1e4, busy_ms=2e4))
    assert busy.value.retry_ms == 2e4
    with pytest.raises(BudgetUnreachable) as never:
        planner.choose(asked(1.0), Load(waiting_ms=1e4, busy_ms=2e4))
    assert never.value.retry_ms is None


def test_those_behind_leave_so_much_room(make: Callable[..., Planner], three: Quality) -> None:
    planner = make(three)
    for at in (SMALL, MIDDLE, LARGE):
        room = late_ms(planner, at) * 1.001
        assert planner.choose(asked(1e6), Load(room_ms=room)).plan.point == at
    with pytest.raises(BudgetUnreachable, match="other requests are in its way"):
        planner.choose(asked(1e6), Load(room_ms=barely_ms(planner, SMALL) * 0.999))


def test_time_is_shared_with_others_that_have_a_deadline(
    make: Callable[..., Planner], three: Quality
) -> None:
    planner = make(three)
    for at, others in ((LARGE, 1), (MIDDLE, 2), (SMALL, 3)):
        deadline = (others + 1) * late_ms(planner, at) * 1.001
        assert planner.choose(asked(deadline), Load(others=others)).plan.point == at
    # Nobody is refused for it, and where no limit is given nothing is shared.
    tight = late_ms(planner, SMALL) * 1.001
    assert planner.choose(asked(tight), Load(others=9)).plan.point == SMALL
    assert planner.choose(asked(min_quality=0.6), Load(others=9)).plan.point == LARGE


def test_a_thought_is_asked_of_points_that_have_one(
    make: Callable[..., Planner], machines: ModuleType
) -> None:
    quick, deep = replace(SMALL, thinking_tokens=0), replace(SMALL, thinking_tokens=64)
    planner = make(machines.quality_of({quick: scores(80), deep: scores(180)}))
    assert planner.choose(asked(1e6)).plan.point == deep
    assert planner.choose(asked(1e6, thinking=True)).plan.point == deep
    assert planner.choose(asked(1e6, thinking=False)).plan.point == quick
    only = make(machines.quality_of({SMALL: scores(80)}))
    assert only.choose(asked(1e6, thinking=False)).plan.point == SMALL  # the prompt says it


def test_small_differences_do_not_change_the_choice(
    make: Callable[..., Planner], three: Quality
) -> None:
    planner = make(three)
    deadline = late_ms(planner, LARGE) * (1 + SETTLED / 2)
    request = asked(deadline)
    assert planner.choose(request).plan.point == LARGE
    slow, usual = 1 + SETTLED, 1.0
    planner.paces.total.level = slow
    assert planner.choose(request).plan.point == MIDDLE
    planner.paces.total.level = usual  # it would fit again, with too little to spare
    assert planner.choose(request).plan.point == MIDDLE
    planner.paces.total.level = usual - SETTLED
    assert planner.choose(request).plan.point == LARGE
    planner.paces.total.level = usual
    assert planner.choose(request).plan.point == LARGE
    # Another budget has no history.
    planner.paces.total.level = slow
    assert planner.choose(request).plan.point == MIDDLE
    planner.paces.total.level = usual
    assert planner.choose(asked(deadline + 1e-9)).plan.point == LARGE


def test_a_slower_machine_is_planned_for(make: Callable[..., Planner], three: Quality) -> None:
    planner = make(three)
    work = work_of(planner._table._loaded, 30, (PNG,), _settings(planner, LARGE), 4).work
    fitted = planner.model.stages(work)
    deadline = late_ms(planner, LARGE) * 1.1
    chosen = []
    for speed in [1.0] * 4 + [2.0] * 4 + [1.0] * 4:
        plan = planner.choose(asked(deadline)).plan
        chosen.append(plan.point)
        total = fitted.ttft_ms + fitted.decode_ms
        planner.record(speed * fitted.ttft_ms, speed * total, fitted)
    assert chosen[:4] == [LARGE] * 4
    assert chosen[7] != LARGE and chosen[11] == LARGE
    assert planner.choose(asked(deadline)).plan.speed == pytest.approx(1.0)


def test_a_machine_that_was_slow_is_not_refused_for_ever(
    bundle: Find, machines: ModuleType, record: LatencyRecord, three: Quality
) -> None:
    opened = Bundle.open(bundle("llava"))
    machine = machines.Machine(opened, [40])
    planner = Planner(Loaded(opened, machine, machine.clock), record, three)
    deadline = late_ms(planner, SMALL) * 1.05
    work = work_of(planner._table._loaded, 30, (PNG,), _settings(planner, SMALL), 4).work
    fitted = planner.model.stages(work)
    for _ in range(3):
        planner.record(3 * fitted.ttft_ms, 3 * (fitted.ttft_ms + fitted.decode_ms), fitted)
    machine.now = OUTDATED_S - 0.01
    with pytest.raises(BudgetUnreachable, match="as fast as when it was measured") as slow:
        planner.choose(asked(deadline))
    assert slow.value.slowed and slow.value.retry_ms is None
    assert planner.paces.total.level == pytest.approx(3.0)
    machine.now = OUTDATED_S
    with pytest.raises(BudgetUnreachable):  # what is ahead of it will tell
        planner.choose(asked(deadline), Load(waiting_ms=1.0, busy_ms=1.0))
    with pytest.raises(BudgetUnreachable) as never:
        planner.choose(asked(deadline / 2))  # nor would it be met by the file
    assert not never.value.slowed
    # It waits for nobody: planning alone took so long.
    assert planner.choose(asked(deadline), Load(waiting_ms=1.0)).plan.speed == 1.0


def test_a_table_says_of_each_candidate_what_its_work_takes(
    make: Callable[..., Planner], machines: ModuleType
) -> None:
    """Of methods that keep as many tokens the work is counted once."""
    methods = [replace(point(56, "25%"), selector=name) for name in ("divprune", "random")]
    chain = OperatingPoint(resolution=56, selector="divprune+fastv", keep=("50%", "25%"))
    budgeted = [replace(at, kv_budget=40) for at in methods]
    points = [SMALL, *methods, chain, *budgeted, LARGE]
    planner = make(machines.quality_of({at: scores(100, seed) for seed, at in enumerate(points)}))
    times = planner._table.times(range(32), (PNG,), 16)
    for place, entry in enumerate(planner._all):
        at = resolve(entry.point, planner._table._loaded.manifest)
        length = times.completion_tokens[place]
        work = work_of(planner._table._loaded, 32, (PNG,), at, length).work
        stages = planner.model.stages(work)
        apart = planner.model.source_ms(PNG, at.resolution)
        assert times.ttft[place] + apart == pytest.approx(stages.ttft_ms, rel=0.02)
        assert times.decode[place] == pytest.approx(stages.decode_ms)
    assert len(planner._all) > 3


def test_whether_a_machine_is_still_slow_the_fastest_point_finds_out(
    bundle: Find, machines: ModuleType, record: LatencyRecord, three: Quality
) -> None:
    opened = Bundle.open(bundle("llava"))
    for still in (True, False):
        machine = machines.Machine(opened, [40])
        planner = Planner(Loaded(opened, machine, machine.clock), record, three)
        deadline = late_ms(planner, LARGE) * 1.05
        slow = 1.1 * deadline / barely_ms(planner, SMALL)
        work = work_of(planner._table._loaded, 30, (PNG,), _settings(planner, SMALL), 4).work
        fitted = planner.model.stages(work)

        def took(speed: float, planner: Planner = planner, fitted: Stages = fitted) -> None:
            planner.record(speed * fitted.ttft_ms, speed * fitted.total_ms, fitted)

        for _ in range(3):
            took(slow)
        with pytest.raises(BudgetUnreachable):
            planner.choose(asked(deadline))
        machine.now = OUTDATED_S
        assert planner.choose(asked(deadline)).plan.point == SMALL
        took(slow if still else 1.0)  # and one request tells it
        if still:
            with pytest.raises(BudgetUnreachable):
                planner.choose(asked(deadline))
        else:
            assert planner.choose(asked(deadline)).plan.point == LARGE


def _settings(planner: Planner, at: OperatingPoint) -> Any:
    return resolve(at, planner._table._loaded.manifest)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_longer_deadline_is_never_answered_worse(
    data: st.DataObject, make: Callable[..., Planner], machines: ModuleType
) -> None:
    points = [point(side, keep) for side in (28, 56, 84) for keep in (None, "50%", "25%")]
    points = data.draw(st.lists(st.sampled_from(points), min_size=2, unique=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    chances = rng.uniform(0.3, 0.95, len(points))
    hardness = rng.uniform(0, 0.3, 60)
    rows = {
        at: (rng.random(60) < np.clip(chance - hardness, 0, 1)).astype(float).tolist()
        for at, chance in zip(points, chances, strict=True)
    }
    quality = machines.quality_of(rows)
    limits = sorted(late_ms(make(quality), at) for at in points)
    found = [make(quality).choose(asked(limit * 1.0001)).plan.quality for limit in limits]
    assert found == sorted(found)  # type: ignore[type-var]


def test_without_quality_more_tokens_and_pixels_are_better(
    make: Callable[..., Planner], parts: Loaded
) -> None:
    points = assumed_points(parts.manifest)
    assert points[0] == point(84)
    assert len(points) == 3 * (1 + len(KEEPS)) and len(set(points)) == len(points)
    planner = make()
    plan = planner.choose(asked(1e6)).plan
    assert (plan.point, plan.quality, plan.quality_source, plan.task) == (
        points[0],
        None,
        "assumed",
        None,
    )
    assert plan.completion_tokens == 16
    limits = [late_ms(planner, at) for at in points]
    for deadline in sorted(limits):
        found = make().choose(asked(deadline * 1.0001)).plan
        first = next(
            at for at, limit in zip(points, limits, strict=True) if limit <= deadline * 1.0001
        )
        assert found.point == first


def test_a_text_model_has_one_assumed_point(bundle: Find) -> None:
    assert assumed_points(Bundle.open(bundle("llama")).manifest) == [OperatingPoint()]


def test_lengths_of_answers_are_those_of_99_in_100(machines: ModuleType) -> None:
    (measured,) = machines.quality_of({SMALL: scores(10)}, tokens=9, thinking=3).points
    outcomes = list(measured.outcomes)
    for place, length in ((0, 500), (1, 400), (2, 300)):
        outcomes[place] = replace(outcomes[place], completion_tokens=length, thinking_tokens=1)
    found = candidate_of(replace(measured, outcomes=tuple(outcomes)))
    assert (found.most_tokens, found.answer_tokens) == (300, 299)
    # An answer that was cut says nothing about what stands behind a thought.
    cut = [replace(outcome, finish_reason="length") for outcome in outcomes[:3]]
    found = candidate_of(replace(measured, outcomes=(*cut, *outcomes[3:])))
    assert (found.most_tokens, found.answer_tokens) == (300, 6)
    one = candidate_of(replace(measured, outcomes=(outcomes[3],)))
    assert (one.most_tokens, one.answer_tokens) == (9, 6)


def test_images_are_planned_for_by_their_headers(
    make: Callable[..., Planner], three: Quality
) -> None:
    planner = make(three)
    none, small, large = (
        planner.choose(asked(1e6, images=images)).plan.total.p50_ms
        for images in ((), (PNG,), (replace(PNG, width=4000, height=2000),))
    )
    model = planner.model
    megapixels = 8.0 - 0.01
    more = megapixels * (model.decoding["PNG"].megapixel_ms + model.preprocessing.megapixel_ms)
    assert none < small
    assert large - small == pytest.approx(more, rel=1e-3)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 600), st.integers(1, 60), st.sampled_from(("28", "56", "84")))
def test_tabled_times_are_those_of_the_model(
    make: Callable[..., Planner], num_ids: int, max_tokens: int, side: str
) -> None:
    planner, at = make(), point(int(side))
    request = asked(1e9, num_ids=num_ids, max_tokens=max_tokens, point=at)
    plan = planner.choose(request).plan
    work = work_of(planner._table._loaded, num_ids, (PNG,), _settings(planner, at), max_tokens).work
    fitted = planner.model.stages(work)
    # Lengths count as the next multiple: never less, and little more.
    assert fitted.ttft_ms * 0.999 <= plan.ttft.p50_ms <= fitted.ttft_ms * 1.1 + 2
    exact = fitted.ttft_ms + fitted.decode_ms
    assert exact * 0.999 <= plan.total.p50_ms <= exact * 1.1 + 2


def test_an_answer_is_planned_no_longer_than_the_slots_let_it_be(
    make: Callable[..., Planner],
) -> None:
    planner = make()
    slots = planner._table._loaded.manifest.slots
    plan = planner.choose(asked(1e9, num_ids=slots - 63, images=(), max_tokens=5000)).plan
    assert 1 <= plan.completion_tokens <= 64


def test_a_prompt_that_no_slots_hold_is_an_input_error(
    make: Callable[..., Planner], three: Quality
) -> None:
    for quality in (None, three):
        for effort in ("refuse", "best_effort"):
            with pytest.raises(InputError, match="the slots cannot hold the prompt of 9000 tokens"):
                make(quality).choose(asked(1e9, num_ids=9000, if_unreachable=effort))


def test_planning_is_quick(make: Callable[..., Planner], machines: ModuleType) -> None:
    points = [point(side, f"{keep}%") for side in (28, 56, 84) for keep in range(10, 100, 7)]
    planner = make(machines.quality_of({at: scores(60 + i) for i, at in enumerate(points)}))
    times = []
    for number in range(400):
        started = time.thread_time()
        planner.choose(asked(150.0 + number % 7, num_ids=30 + number % 5))
        times.append(time.thread_time() - started)
    assert median(times) < 0.02, f"{1e3 * median(times):.1f} ms a plan of {len(points)} points"


def test_many_threads_may_ask(make: Callable[..., Planner], three: Quality) -> None:
    planner, found = make(three), []

    def ask(number: int) -> None:
        for _ in range(20):
            found.append(planner.choose(asked(1e6, num_ids=20 + number)).plan.point)
            planner.choose(asked(1e6, point=OperatingPoint(kv_budget=50 + number)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [LARGE] * 80


@pytest.mark.parametrize("name", ["deadline_ms", "first_token_ms", "energy_j"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "900ms", 1j])
def test_a_limit_is_a_number_above_nothing(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name} is .*accepted: .* above 0, finite"):
        Budget(**{name: value})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "a budget has no limit"),
        ({"task": "mix"}, "a budget has no limit"),
        ({"min_quality": 1.1}, "min_quality is 1.1"),
        ({"min_quality": -0.1}, "min_quality is"),
        ({"min_quality": math.nan}, "min_quality is nan"),
        ({"deadline_ms": 9, "task": 3}, "task is"),
        ({"deadline_ms": 9, "if_unreachable": "hope"}, "if_unreachable is 'hope'"),
    ],
)
def test_a_budget_that_nothing_can_mean_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Budget(**values)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def fresh(bundle: Find, machines: ModuleType) -> Model:
    opened = Bundle.open(bundle("llama"))
    machine = machines.Machine(opened, [40, 41, machines.END], step_s=0.004, chunk_s=0.01)
    return Model(opened, machine, machine.clock)


def test_without_a_latency_file_no_deadline_is_planned(fresh: Model, state: Path) -> None:
    budget = Budget(deadline_ms=900)
    for call in (fresh.generate, fresh.stream, fresh.count):
        ask: Any = call
        with pytest.raises(ProfileError, match=r"no latency was measured .*--latency-only"):
            ask("what", budget=budget)
    with pytest.raises(ProfileError, match="no latency was measured"):
        fresh.warm_up()
    assert fresh.backend.chunks == 0  # type: ignore[attr-defined]


def test_an_unknown_task_is_named(fresh: Model, state: Path, synthetic: ModuleType) -> None:
    write_latency(
        fresh.bundle, replace(synthetic.RECORD, key=latency_key(fresh.bundle, fresh.backend))
    )
    with pytest.raises(ProfileError, match="no quality was measured by task 'mine'"):
        fresh.generate("what", budget=Budget(deadline_ms=900, task="mine"))


def test_a_latency_file_of_another_backend_is_none(
    fresh: Model, state: Path, synthetic: ModuleType
) -> None:
    key = latency_key(fresh.bundle, fresh.backend)
    file = write_latency(fresh.bundle, replace(synthetic.RECORD, key=replace(key, threads=7)))
    with pytest.raises(ProfileError, match="there is one for"):
        fresh.generate("what", budget=Budget(deadline_ms=900))
    file.rename(latency_file(fresh.bundle, key))
    with pytest.raises(ProfileError, match="was measured for threads 7, here it is 1"):
        fresh.generate("what", budget=Budget(deadline_ms=900))


def test_an_answer_says_what_was_planned(fresh: Model, state: Path, synthetic: ModuleType) -> None:
    write_latency(
        fresh.bundle, replace(synthetic.RECORD, key=latency_key(fresh.bundle, fresh.backend))
    )
    fresh.warm_up()
    warmed = fresh.backend.chunks  # type: ignore[attr-defined]
    assert warmed > 0
    budget = Budget(deadline_ms=900)
    count = fresh.count("what", budget=budget, max_tokens=8)
    assert fresh.backend.chunks == warmed  # type: ignore[attr-defined]
    answer = fresh.generate("what", budget=budget, max_tokens=8)
    assert answer.deadline_met is True
    assert answer.plan is not None and answer.plan == count.plan
    told = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert told["deadline_met"] is True
    assert told["plan"]["total"]["p99_ms"] == answer.plan.total.p99_ms
    assert told["plan"]["quality_source"] == "assumed"
    assert json.loads(json.dumps(count.to_dict(), allow_nan=False))["plan"] == told["plan"]
    plain = fresh.generate("what", max_tokens=8)
    assert plain.plan is None and plain.deadline_met is None
    assert plain.to_dict()["plan"] is None


def test_the_first_request_with_a_budget_warms_up_before_its_clock_starts(
    fresh: Model, state: Path, synthetic: ModuleType
) -> None:
    write_latency(
        fresh.bundle, replace(synthetic.RECORD, key=latency_key(fresh.bundle, fresh.backend))
    )
    machine: Any = fresh.backend
    machine.chunk_s = lambda number: 5.0 if number == 0 else 0.01
    answer = fresh.generate("what", budget=Budget(deadline_ms=900), max_tokens=8)
    assert machine.chunks == 2 and answer.deadline_met is True
    fresh.generate("what", budget=Budget(deadline_ms=900), max_tokens=8)
    assert machine.chunks == 3


@pytest.mark.parametrize(
    ("waited_s", "begun"),
    [
        (0.04, True),  # a cheaper point is still in time
        (0.5, False),  # not even the cheapest is
    ],
)
def test_a_request_that_waited_too_long_is_planned_anew(
    waited_s: float,
    begun: bool,
    bundle: Find,
    machines: ModuleType,
    record: LatencyRecord,
    three: Quality,
) -> None:
    opened = Bundle.open(bundle("llava"))
    machine = machines.Machine(opened, [40, 41, machines.END])
    model = machines.planned(machine, opened, record, three)
    picture = np.zeros((30, 30, 3), np.uint8)
    # Somebody without a budget runs before it, for longer than was to be expected.
    machine.chunk_s = lambda number: waited_s if number == 0 else 0.0
    reached, gate = threading.Event(), threading.Event()
    first = machine.prefill

    def held(*arguments: Any) -> Any:
        reached.set()
        gate.wait(20)
        return first(*arguments)

    machine.prefill = held
    ahead = model.stream("what", max_tokens=1)
    assert reached.wait(20)  # from here on nobody else moves the clock
    probe = model.count("what", [picture], budget=Budget(deadline_ms=1e6), max_tokens=8)
    assert probe.plan is not None and probe.plan.point == LARGE
    deadline = probe.plan.total.p99_ms * 1.001
    stream = model.stream("what", [picture], budget=Budget(deadline_ms=deadline), max_tokens=8)
    gate.set()
    ahead.answer()
    answer = stream.answer()
    assert answer.plan is not None and answer.plan.point in (SMALL, MIDDLE)
    assert answer.plan.waiting_ms == pytest.approx(1e3 * waited_s)
    assert answer.point.resolution == answer.plan.point.resolution
    assert answer.deadline_met is begun
    assert machine.chunks == (2 if begun else 1)
    assert answer.finish_reason == ("stop" if begun else "deadline")
    assert model._loaded.engine.waiting.load(math.inf, machine.now) == IDLE
