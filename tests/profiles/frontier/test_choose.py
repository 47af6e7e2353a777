"""The point for a budget: within it, as good as the best of those that are, and the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.budget import Budget
from tightrope.errors import BudgetUnreachable, ProfileError
from tightrope.paired import indistinguishable
from tightrope.point import OperatingPoint
from tightrope.profiles.frontier.choose import Choice, choose
from tightrope.profiles.frontier.frontier import Frontier, Row, marked
from tightrope.profiles.frontier.took import measured
from tightrope.profiles.frontier.typical import Typical
from tightrope.quality_file import QualityKey

TASK = QualityKey(
    bundle="ab" * 32, task="5a" * 32, task_name="scenes", measure="accuracy", max_tokens=16
)


def point(number: int) -> OperatingPoint:
    return OperatingPoint(kv_budget=number + 1)


def frontier(files: Any, key: Any, rows: Sequence[tuple[float, Sequence[float]]]) -> Frontier:
    """rows: milliseconds in all, and the scores of each point."""
    made = [
        Row(
            point=point(number),
            asked=files.measured_point(point(number), scores),
            took=measured(files.runs(point(number), ms), {}),
            count=None,
        )
        for number, (ms, scores) in enumerate(rows)
    ]
    return Frontier(
        bundle="x.bundle",
        key=key,
        task=TASK,
        request=Typical(prompt="what", images=[], text_tokens=3),
        order="total_p95_ms",
        rows=marked(made, "total_p95_ms"),
        slos={},
    )


ROWS = st.lists(
    st.tuples(
        st.floats(10, 500),
        st.lists(st.sampled_from([0.0, 1.0]), min_size=20, max_size=20),
    ),
    min_size=1,
    max_size=6,
)


@given(rows=ROWS, deadline=st.floats(50, 600), more=st.floats(0, 300))
def test_it_fits_and_is_as_good_as_the_best_and_more_time_never_makes_that_worse(
    frontier_files: Any,
    synthetic: Any,
    rows: list[tuple[float, list[float]]],
    deadline: float,
    more: float,
) -> None:
    made = frontier(frontier_files, synthetic.KEY, rows)
    tight = chosen(made, deadline)
    loose = chosen(made, deadline + more)
    if tight is None:
        return
    assert loose is not None
    assert (loose.best.quality or 0) >= (tight.best.quality or 0)
    assert loose.fitting >= tight.fitting
    for choice, limit in ((tight, deadline), (loose, deadline + more)):
        assert choice.row.took is not None and choice.row.took.total.p99_ms <= limit
        assert choice.row in choice.alike and choice.best in choice.alike
        fastest = min(row.took.total.p95_ms for row in choice.alike if row.took is not None)
        assert choice.row.took.total.p95_ms == fastest
        found = indistinguishable([row.asked for row in choice.alike if row.asked is not None])
        assert len(found) == len(choice.alike)


def chosen(made: Frontier, deadline: float) -> Choice | None:
    try:
        return choose(made, Budget(deadline_ms=deadline))
    except BudgetUnreachable:
        assert all(row.took is None or row.took.total.p99_ms > deadline for row in made.rows)
        return None


@given(rows=ROWS)
def test_without_the_dominated_points_the_best_is_worth_the_same(
    frontier_files: Any, synthetic: Any, rows: list[tuple[float, list[float]]]
) -> None:
    made = frontier(frontier_files, synthetic.KEY, rows)
    kept = [rows[row.point.kv_budget - 1] for row in made.rows if row.on_frontier]  # type: ignore[operator]
    fewer = frontier(frontier_files, synthetic.KEY, kept)
    budget = Budget(deadline_ms=10_000.0)
    assert choose(fewer, budget).best.quality == choose(made, budget).best.quality


@pytest.fixture
def made(frontier_files: Any, synthetic: Any) -> Frontier:
    share = frontier_files.share
    return frontier(
        frontier_files,
        synthetic.KEY,
        [(100.0, share(50, 100)), (200.0, share(90, 100)), (300.0, share(91, 100))],
    )


def test_of_points_alike_the_fastest_is_taken(made: Frontier) -> None:
    choice = choose(made, Budget(deadline_ms=1000.0))
    assert (choice.row.point, choice.best.point) == (point(1), point(2))
    assert [row.point for row in choice.alike] == [point(2), point(1)]
    assert choice.fitting == 3
    assert choose(made, Budget(deadline_ms=150.0)).row.point == point(0)


def test_below_the_fastest_point_its_figure_is_told(made: Frontier) -> None:
    with pytest.raises(
        BudgetUnreachable, match=r"within 90 ms: the fastest, 1 slots, takes 109\.\d ms .*measured"
    ):
        choose(made, Budget(deadline_ms=90.0))


def test_a_first_token_may_be_what_is_late(made: Frontier) -> None:
    assert choose(made, Budget(first_token_ms=150.0)).row.point == point(1)
    with pytest.raises(BudgetUnreachable, match="no point has its first token within 50 ms: the"):
        choose(made, Budget(deadline_ms=1000.0, first_token_ms=50.0))
    with pytest.raises(BudgetUnreachable, match="of those that answer in time"):
        choose(made, Budget(deadline_ms=250.0, first_token_ms=20.0))


def test_a_quality_that_no_point_in_time_has_is_told(made: Frontier) -> None:
    assert choose(made, Budget(deadline_ms=1000.0, min_quality=0.905)).row.point == point(2)
    with pytest.raises(BudgetUnreachable, match=r"quality of 0\.6: the best, 1 slots, has 0\.5"):
        choose(made, Budget(deadline_ms=150.0, min_quality=0.6))


def test_energy_is_no_limit_where_it_was_not_measured(made: Frontier) -> None:
    with pytest.raises(ProfileError, match="energy_j limits what was not measured"):
        choose(made, Budget(energy_j=2.0))


def test_energy_is_a_limit_where_it_was_measured(made: Frontier) -> None:
    timed = [row for row in made.rows if row.took is not None]
    joules = {row.point: 1.0 + number for number, row in enumerate(timed)}
    rows = tuple(
        row
        if row.took is None
        else replace(row, took=replace(row.took, energy_j=joules[row.point]))
        for row in made.rows
    )
    frontier = replace(made, rows=rows)
    choice = choose(frontier, Budget(energy_j=1.5))
    assert (choice.row.point, choice.fitting) == (timed[0].point, 1)
    assert choose(frontier, Budget(energy_j=1e6)).fitting == len(timed)
    with pytest.raises(BudgetUnreachable, match=r"takes 0\.5 J or less: .* takes 1\.00 J"):
        choose(frontier, Budget(energy_j=0.5))
