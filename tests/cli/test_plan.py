"""What is said of a plan's heat and energy, and of what was spent."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from tightrope.cli.plan import plan_rows, spent_rows
from tightrope.jetson.spent import Spent
from tightrope.point import OperatingPoint
from tightrope.runtime.plan import Expected, HeatPlan, Plan

EXPECTED = Expected(p50_ms=1.0, p95_ms=2.0, p99_ms=3.0)
PLAN = Plan(
    point=OperatingPoint(keep=64, selector="flashvlm"),
    quality=0.8,
    quality_source="measured",
    task="mix",
    completion_tokens=4,
    cached_tokens=0,
    ttft=EXPECTED,
    total=EXPECTED,
    waiting_ms=0.0,
    speed=1.0,
    fitting=3,
    alike=1,
    points=3,
    best_effort=False,
    energy_j=2.5,
    heat=HeatPlan(hottest_c=81.6, watts=9.5, allowed_watts=10.2, left_out=2, price=0.05),
)


def test_a_plan_says_its_energy_and_the_price_of_its_ceiling() -> None:
    rows = dict(plan_rows(PLAN))
    assert rows["predicted energy"] == "2.50 J"
    assert rows["heat"] == (
        "82 °C, 9.5 W in the mean, 10.2 allowed, 2 points left out, which costs 0.050 of quality"
    )


def test_what_was_spent_is_told_with_what_measured_it() -> None:
    spent = Spent(
        energy_j=6.0,
        token_j=0.25,
        source="INA3221 VDD_IN",
        hottest_c=71.04,
        throttled=("gpu-throttle-alert",),
        over_current=3,
    )
    assert spent_rows(spent) == [
        ("energy", "6.00 J, 0.250 J a token (INA3221 VDD_IN)"),
        ("hottest", "71.0 °C"),
        ("held back by", "gpu-throttle-alert"),
        ("over-current", "3 events"),
    ]
    short = Spent(energy_j=None, token_j=None, source="x", why="too short to measure: 9 ms")
    assert spent_rows(short) == [("energy", "too short to measure: 9 ms")]


def test_a_ceiling_needs_a_budget(
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    result = command("run", "nowhere.bundle", "what?", "--max-temp", "80")
    assert result.returncode == 2
    assert "kept by planning, but there is no budget" in result.stderr
    wrong = command("run", "nowhere.bundle", "what?", "--deadline", "1s", "--max-temp", "500")
    assert wrong.returncode == 2 and "max_temp is 500" in wrong.stderr
