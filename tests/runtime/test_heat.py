"""A ceiling over heat: cheaper points before a board throttles, at the price that plans state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tightrope.budget import Budget
from tightrope.bundle import Bundle
from tightrope.errors import BudgetUnreachable, DeviceUnavailable, InputError, ProfileError
from tightrope.latency import SourceImage, Stages, TowerTime
from tightrope.latency_file import LatencyRecord
from tightrope.point import OperatingPoint
from tightrope.power import PowerModel
from tightrope.quality_file import Quality
from tightrope.runtime.ceiling import Ceiling, ceiling_of
from tightrope.runtime.heat import BAND_C, Heat, heat_of
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.plan import Asked, Plan
from tightrope.runtime.planner import Planner

Find = Callable[[str], Path]
PNG = SourceImage(format="PNG", width=100, height=100, encoded_bytes=5000)
QUESTIONS, REQUESTS, PERIOD_S = 200, 500, 0.5
POWER = PowerModel(
    source="INA3221 VDD_IN",
    idle_w=5.0,
    host_w=8.0,
    read_w=45.0,
    write_w=30.0,
    error_percent=2.0,
    readings=2000,
)
THROTTLES_C, CEILING_C = 97.0, 92.0
SMALL, MIDDLE, LARGE = (OperatingPoint(resolution=side) for side in (28, 56, 84))


@dataclass
class Board:
    """A lump of heat: it warms by what it draws, cools towards the room, throttles when hot."""

    now: float = 0.0
    degrees: float = 60.0
    throttled: int = 0
    """Requests."""
    watts: float = POWER.idle_w
    room_c: float = 35.0
    kelvin_per_watt: float = 4.5
    seconds: float = 40.0

    def clock(self) -> float:
        return self.now

    def hottest_c(self) -> float | None:
        return self.degrees

    def mean_watts(self, seconds: float) -> float | None:
        return self.watts

    def request(self, joules: float, takes_s: float) -> None:
        """One, and the rest of its period."""
        self.throttled += self.degrees >= THROTTLES_C
        watts = (joules + POWER.idle_w * (PERIOD_S - takes_s)) / PERIOD_S
        settles = self.room_c + self.kelvin_per_watt * watts
        self.degrees += (settles - self.degrees) * (1 - np.exp(-PERIOD_S / self.seconds))
        self.watts += (watts - self.watts) * min(1.0, PERIOD_S / 30)
        self.now += PERIOD_S


@pytest.fixture
def parts(bundle: Find, machines: ModuleType) -> Loaded:
    opened = Bundle.open(bundle("llava"))
    machine = machines.Machine(opened, [40])
    return Loaded(opened, machine, machine.clock)


@pytest.fixture
def record(machines: ModuleType, synthetic: ModuleType) -> LatencyRecord:
    sizes = ((28, 10.0), (56, 60.0), (84, 220.0))
    tower = tuple(TowerTime(resolution=side, image_ms=ms) for side, ms in sizes)
    model = replace(machines.steady(synthetic.MODEL, 0.05), tower=tower)
    return replace(synthetic.RECORD, model=model, power=POWER)  # type: ignore[no-any-return]


@pytest.fixture
def quality(machines: ModuleType) -> Quality:
    order = np.random.default_rng(0).permutation(QUESTIONS)
    rights = {SMALL: 120, MIDDLE: 160, LARGE: 190}
    return machines.quality_of(  # type: ignore[no-any-return]
        {point: [float(place < right) for place in order] for point, right in rights.items()}
    )


def asked(**limits: Any) -> Asked:
    budget = Budget(**(limits or {"deadline_ms": 1e6}))
    return Asked(budget=budget, token_ids=tuple(range(30)), images=(PNG,), max_tokens=16)


def run(planner: Planner, board: Board) -> list[Plan]:
    """REQUESTS of them, one a period; each takes and draws what was planned."""
    plans = []
    for _ in range(REQUESTS):
        plan = planner.choose(asked()).plan
        assert plan.energy_j is not None
        board.request(plan.energy_j, plan.total.p50_ms / 1e3)
        takes = plan.total.p50_ms
        planner.record(takes, takes, stages(takes))
        plans.append(plan)
    return plans


def stages(total_ms: float) -> Stages:
    return Stages(
        image_decode_ms=0.0,
        preprocess_ms=0.0,
        vision_ms=total_ms,
        select_ms=0.0,
        prefill_ms=0.0,
        host_ms=0.0,
        decode_ms=0.0,
    )


def test_below_a_ceiling_no_request_of_500_finds_the_board_throttled(
    parts: Loaded, record: LatencyRecord, quality: Quality
) -> None:
    plain, cooled = Board(), Board()
    freely = run(Planner(parts, record, quality), plain)
    assert {plan.point for plan in freely} == {LARGE} and plain.throttled > 400
    parts.heat = Heat(Ceiling(max_temp=CEILING_C), cooled, cooled.clock)
    kept = run(Planner(parts, record, quality), cooled)
    assert cooled.throttled == 0
    prices = [plan.heat.price for plan in kept if plan.heat is not None]
    assert len(prices) == REQUESTS
    qualities = {SMALL: 0.6, MIDDLE: 0.8, LARGE: 0.95}
    assert prices == pytest.approx([0.95 - qualities[plan.point] for plan in kept])
    # The board is used: it is as warm as it may be, and most of the quality is there.
    assert cooled.degrees > CEILING_C - 2 * BAND_C
    assert 0 < float(np.mean([price or 0.0 for price in prices])) < 0.15
    early = kept[0].heat
    assert early is not None and early.left_out == 0 and early.price == 0.0
    assert early.hottest_c == 60.0


def test_mean_power_stays_below_its_ceiling(
    parts: Loaded, record: LatencyRecord, quality: Quality
) -> None:
    plain, cooled = Board(), Board()
    run(Planner(parts, record, quality), plain)
    limit = 12.0
    assert plain.watts > limit + 2
    parts.heat = Heat(Ceiling(max_watts=limit), cooled, cooled.clock)
    plans = run(Planner(parts, record, quality), cooled)
    assert cooled.watts <= limit
    last = plans[-1].heat
    assert last is not None and last.watts is not None and last.allowed_watts is not None
    assert last.watts <= last.allowed_watts <= limit
    assert last.hottest_c is None and last.left_out > 0


def cool(heat: Heat, power: PowerModel | None = POWER) -> list[bool]:
    """Which of three points of 10, 100 and 300 ms are taken at once."""
    total = np.array([10.0, 100.0, 300.0])
    joules = total / 1e3 * 40.0
    found = heat.cool(np.ones(3, np.bool_), total, joules, power)  # type: ignore[arg-type]
    return [bool(value) for value in found.choices]


@pytest.mark.parametrize("power", [POWER, None])
def test_the_hotter_the_fewer(power: PowerModel | None) -> None:
    board = Board()
    heat = Heat(Ceiling(max_temp=90), board, board.clock)
    counts = []
    for degrees in np.arange(80.0, 95.0, 0.5):
        board.degrees = float(degrees)
        taken = cool(heat, power)
        assert taken == sorted(taken, reverse=True)
        counts.append(sum(taken))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 3 and counts[-1] == 1


def test_a_zone_that_cannot_be_read_counts_as_too_hot() -> None:
    board = Board()
    heat = Heat(Ceiling(max_temp=90), board, board.clock)
    assert cool(heat) == [True, True, True]
    board.hottest_c = lambda: None  # type: ignore[method-assign]
    assert cool(heat) == [True, False, False]


def test_what_was_drawn_too_much_is_made_up_for() -> None:
    board = Board()
    heat = Heat(Ceiling(max_watts=20), board, board.clock)
    for _ in range(10):
        heat.done()
        board.now += 1.0
    board.watts = 10.0
    assert cool(heat) == [True, True, True]  # 5 + 0.3 · 35 W
    board.watts = 25.0
    assert cool(heat) == [True, True, False]  # 15 W are left
    board.watts = 500.0
    assert cool(heat) == [True, False, False]


def test_requests_that_come_seldom_may_be_dear() -> None:
    board = Board()
    heat = Heat(Ceiling(max_watts=10), board, board.clock)
    for _ in range(10):
        heat.done()
        board.now += 1.0
    assert cool(heat) == [True, True, False]
    board.now += 100.0
    assert cool(heat) == [True, True, True]


def test_power_is_a_ceiling_only_where_it_was_measured(
    parts: Loaded, record: LatencyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tightrope.runtime import planners as module

    board = Board()
    parts.heat = Heat(Ceiling(max_watts=20), board, board.clock)
    monkeypatch.setattr(parts, "planners", {})
    monkeypatch.setattr(module, "read_latency", lambda *given: replace(record, power=None))
    with pytest.raises(ProfileError, match=r"max_watts is 20, but nobody measured .*latency-only"):
        module.planner_of(parts, None)


def test_a_ceiling_without_its_sensor_is_refused() -> None:
    assert heat_of(None, None) is None
    blind: Any = SimpleNamespace(
        hottest_c=lambda: None, sensors=SimpleNamespace(source=None), clock=lambda: 0.0
    )
    for telemetry in (None, blind):
        with pytest.raises(DeviceUnavailable, match="no thermal zone can be read"):
            heat_of(Ceiling(max_temp=80), telemetry)
        with pytest.raises(DeviceUnavailable, match="no sensor tells what the board draws"):
            heat_of(Ceiling(max_watts=80), telemetry)


@pytest.mark.parametrize(
    "limits",
    [{}, {"max_temp": 20}, {"max_temp": 130}, {"max_temp": "hot"}, {"max_watts": 0}],
)
def test_ceilings_that_mean_nothing_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="accepted"):
        Ceiling(**limits)
    assert ceiling_of(None, None) is None


def test_energy_is_a_limit_of_a_budget(
    parts: Loaded, record: LatencyRecord, quality: Quality
) -> None:
    planner = Planner(parts, record, quality)
    joules = {}
    for point in (SMALL, MIDDLE, LARGE):
        plan = planner.choose(replace(asked(), point=point)).plan
        assert plan.energy_j is not None
        joules[point] = plan.energy_j
    assert joules[SMALL] < joules[MIDDLE] < joules[LARGE]
    margin = 1 + POWER.error_percent / 100
    for point, above in ((SMALL, MIDDLE), (MIDDLE, LARGE)):
        for limit in (joules[point] * margin * 1.001, joules[above] * margin * 0.999):
            assert planner.choose(asked(energy_j=limit)).plan.point == point
    least = joules[SMALL]
    with pytest.raises(BudgetUnreachable, match=f"none takes less than {least:.2f} J"):
        planner.choose(asked(energy_j=least / 2))
    effort = planner.choose(asked(energy_j=least / 2, if_unreachable="best_effort")).plan
    assert effort.point == SMALL and effort.best_effort


def test_longer_answers_cost_more_energy(
    parts: Loaded, record: LatencyRecord, quality: Quality
) -> None:
    planner = Planner(parts, record, None)
    short, long = (
        planner.choose(replace(asked(), max_tokens=tokens, point=SMALL)).plan for tokens in (4, 40)
    )
    assert short.energy_j is not None and long.energy_j is not None
    took_ms = long.total.p50_ms - short.total.p50_ms
    assert long.energy_j - short.energy_j == pytest.approx(POWER.write_w * took_ms / 1e3, rel=0.01)
