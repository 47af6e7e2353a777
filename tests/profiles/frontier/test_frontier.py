"""Both halves joined on a real bundle, from real files, and what is said where one is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tightrope.errors import ProfileError
from tightrope.latency_file import LatencyKey, latency_file, write_latency
from tightrope.point import OperatingPoint
from tightrope.profiles.frontier.choose import choose
from tightrope.profiles.frontier.frontier import Frontier, Row, marked
from tightrope.profiles.frontier.join import make_frontier
from tightrope.profiles.frontier.typical import typical
from tightrope.profiles.latency.measured import points_file, write_points
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model

ALL, LARGE, SMALL = (OperatingPoint(resolution=side) for side in (56, 84, 28))
FEW = OperatingPoint(selector="visionzip", keep="25%", resolution=84)


@pytest.fixture
def model(loaded: Callable[[str], Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A bundle of which nothing was measured."""
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))
    return loaded("llava")


@pytest.fixture
def key(model: Model) -> LatencyKey:
    return latency_key(model.bundle, model.backend)


@pytest.fixture
def quality(model: Model, frontier_files: Any) -> Path:
    """Four points; one left the race."""
    share = frontier_files.share
    points = [
        frontier_files.measured_point(LARGE, share(90, 100)),
        frontier_files.measured_point(ALL, share(60, 100)),
        frontier_files.measured_point(SMALL, share(40, 100)),
        frontier_files.measured_point(FEW, share(10, 30), beaten_by=LARGE),
    ]
    file: Path = frontier_files.write_quality(model.bundle, points)
    return file


def made(model: Model, **options: Any) -> Frontier:
    return make_frontier(model, typical(model, None, []), **options)


def row_of(frontier: Frontier, point: OperatingPoint) -> Row:
    return next(row for row in frontier.rows if row.point == point)


def points(rows: Sequence[Row]) -> list[OperatingPoint]:
    return [row.point for row in rows]


@pytest.mark.usefixtures("quality")
def test_both_halves_are_joined_point_by_point(
    model: Model, key: LatencyKey, synthetic: Any
) -> None:
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    frontier = made(model)
    assert frontier.order == "total_p95_ms" and frontier.notes == ()
    assert frontier.task is not None and frontier.task.task_name == "scenes"
    times = [row.took.total.p95_ms for row in frontier.rows if row.took is not None]
    assert len(times) == 4 and times == sorted(times)
    large = row_of(frontier, LARGE)
    assert (large.quality, large.questions) == (0.9, 100)
    assert large.interval is not None and large.interval[0] < 0.9 < large.interval[1]
    assert large.took is not None and large.took.source == "predicted"
    work = large.count.work if large.count is not None else None
    assert work is not None and work.completion_tokens == 4
    expected = synthetic.MODEL.predict(work)
    assert large.took.total.p95_ms == pytest.approx(expected.total.percentile_ms(95), rel=2e-3)


@pytest.mark.usefixtures("quality")
def test_what_was_measured_is_told_instead_of_what_is_predicted(
    model: Model, key: LatencyKey, synthetic: Any, frontier_files: Any
) -> None:
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    # ALL is what no point at all comes to: the bundle's own resolution.
    runs = [frontier_files.runs(OperatingPoint(), 33.0), frontier_files.runs(LARGE, 50.0)]
    write_points(model.bundle, frontier_files.points_record(key, runs))
    frontier = made(model, slos={"request_latency": 34.0})
    took = {row.point: row.took for row in frontier.rows}
    assert set(took) == {LARGE, ALL, SMALL, FEW}
    assert [took[point].source for point in (ALL, LARGE, SMALL)] == [  # type: ignore[union-attr]
        "measured",
        "measured",
        "predicted",
    ]
    measured = took[ALL]
    assert measured is not None and measured.total.p50_ms == pytest.approx(33 * 1.0475)
    assert measured.goodput is not None and measured.goodput.good_request_count == 7
    other = frontier_files.points_record(key, [frontier_files.runs(SMALL, 1.0)], task="77" * 32)
    points_file(model.bundle, key, frontier_files.points_record(key, runs).asked).unlink()
    write_points(model.bundle, other)
    assert {row.took.source for row in made(model).rows if row.took} == {"predicted"}


@pytest.mark.usefixtures("quality")
def test_a_point_that_left_the_race_is_neither_on_the_frontier_nor_dominates(
    model: Model, key: LatencyKey, synthetic: Any
) -> None:
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    left = row_of(made(model), FEW)
    assert left.beaten_by == LARGE
    assert not left.on_frontier and left.dominated_by is None


@pytest.mark.usefixtures("quality")
def test_dominated_points_are_marked_with_what_dominates_them(
    model: Model, key: LatencyKey, frontier_files: Any
) -> None:
    runs = [frontier_files.runs(LARGE, 20.0), frontier_files.runs(ALL, 30.0)]
    runs.append(frontier_files.runs(SMALL, 10.0))
    write_points(model.bundle, frontier_files.points_record(key, runs))
    frontier = made(model)
    assert points(frontier.rows)[:3] == [SMALL, LARGE, ALL]
    assert [row.on_frontier for row in frontier.rows] == [True, True, False, False]
    assert row_of(frontier, ALL).dominated_by == LARGE
    again = marked(frontier.rows[::-1], frontier.order)
    assert again == frontier.rows


@pytest.mark.usefixtures("quality")
def test_without_a_time_points_come_by_their_tokens_and_it_says_so(model: Model) -> None:
    frontier = made(model)
    assert frontier.order == "tokens"
    assert points(frontier.rows) == [SMALL, ALL, FEW, LARGE]
    assert all(row.took is None for row in frontier.rows)
    assert "no latency was measured" in frontier.notes[0]
    assert "ordered by the tokens that they compute" in frontier.notes[0]
    assert [row.on_frontier for row in frontier.rows] == [True, True, False, True]
    with pytest.raises(ProfileError, match=r"no latency was measured .*--latency-only"):
        choose(frontier, budget())


def budget(**limits: Any) -> Any:
    from tightrope.budget import Budget

    return Budget(**({"deadline_ms": 1e6} | limits))


def test_without_quality_the_more_is_kept_the_better_and_it_says_so(
    model: Model, key: LatencyKey, synthetic: Any
) -> None:
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    frontier = made(model)
    assert frontier.task is None and "quality: assumed" in frontier.notes[0]
    assert len(frontier.rows) > 10
    assert all(row.quality is None and row.took is not None for row in frontier.rows)
    assert choose(frontier, budget()).row.point == LARGE
    with pytest.raises(ProfileError, match=r"min_quality is 0\.5, but no quality .*--quality-only"):
        choose(frontier, budget(min_quality=0.5))


def test_without_either_all_points_are_there(model: Model) -> None:
    frontier = made(model)
    assert frontier.order == "tokens" and len(frontier.notes) == 2
    assert row_of(frontier, LARGE).on_frontier and row_of(frontier, SMALL).on_frontier


def test_a_text_model_has_a_frontier_of_its_own(
    loaded: Callable[[str], Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    synthetic: Any,
) -> None:
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path))
    model = loaded("llama")
    key = latency_key(model.bundle, model.backend)
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    frontier = made(model)
    assert OperatingPoint() in points(frontier.rows)
    assert choose(frontier, budget()).row.took is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bundle", "cd" * 32),
        ("board", "Orin NX 16GB"),
        ("power_mode", "7W"),
        ("backend", "tensorrt"),
        ("threads", 6),
    ],
)
@pytest.mark.usefixtures("quality")
def test_a_latency_of_something_else_is_refused(
    model: Model, key: LatencyKey, synthetic: Any, frontier_files: Any, name: str, value: Any
) -> None:
    elsewhere = replace(key, **{name: value})
    file = latency_file(model.bundle, key)
    write_latency(model.bundle, replace(synthetic.RECORD, key=elsewhere)).rename(file)
    with pytest.raises(ProfileError, match=f"was measured for {name} "):
        made(model)
    file.unlink()
    record = frontier_files.points_record(elsewhere, [frontier_files.runs(ALL, 9.0)])
    copied = points_file(model.bundle, key, record.asked)
    write_points(model.bundle, record).rename(copied)
    with pytest.raises(ProfileError, match=f"was measured for {name} "):
        made(model)


def test_a_latency_file_of_other_threads_is_named(
    model: Model, key: LatencyKey, synthetic: Any
) -> None:
    write_latency(model.bundle, replace(synthetic.RECORD, key=replace(key, threads=7)))
    frontier = made(model)
    assert "there is one for" in frontier.notes[0] and "-7" in frontier.notes[0]
    with pytest.raises(ProfileError, match="there is one for"):
        choose(frontier, budget())


def test_a_damaged_latency_file_is_moved_aside_and_the_rest_is_usable_afterwards(
    model: Model, key: LatencyKey, synthetic: Any, quality: Path
) -> None:
    file = write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ProfileError, match=r"is damaged .*damaged-1"):
        made(model)
    assert made(model).order == "tokens" and quality.exists()


def test_a_quality_file_of_another_bundle_or_task_is_refused(
    model: Model, frontier_files: Any
) -> None:
    point = frontier_files.measured_point(ALL, [1.0])
    file = frontier_files.write_quality(model.bundle, [point], digest="cd" * 32)
    with pytest.raises(ProfileError, match="was measured of bundle cdcdcdcdcdcd"):
        made(model)
    file.unlink()
    frontier_files.write_quality(model.bundle, [point])
    with pytest.raises(ProfileError, match="no quality was measured by task 'other'"):
        made(model, task="other")


def test_a_point_that_the_bundle_cannot_run_stays_with_a_note(
    model: Model, key: LatencyKey, synthetic: Any, frontier_files: Any
) -> None:
    mine = OperatingPoint(selector="mine", keep=4)
    points = [frontier_files.measured_point(point, [1.0, 0.0]) for point in (mine, ALL)]
    frontier_files.write_quality(model.bundle, points)
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    frontier = made(model)
    assert "selector is 'mine'" in row_of(frontier, mine).notes[0]
    assert not row_of(frontier, mine).on_frontier
    assert choose(frontier, budget()).row.point == ALL


@pytest.mark.usefixtures("quality")
def test_parts_that_were_not_measured_are_named(
    model: Model, key: LatencyKey, synthetic: Any
) -> None:
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    assert "selector visionzip was not measured" in row_of(made(model), FEW).notes[0]


@pytest.mark.usefixtures("quality")
def test_a_question_of_the_callers_is_what_is_counted(model: Model) -> None:
    image = str(Path(__file__).parents[2] / "data" / "scenes" / "images" / "00001.png")
    frontier = make_frontier(model, typical(model, "what is this ?", [image, image]))
    told = json.loads(json.dumps(frontier.to_dict()))
    assert [entry["format"] for entry in told["request"]["images"]] == ["PNG", "PNG"]
    one = row_of(made(model), ALL).count
    two = row_of(frontier, ALL).count
    assert one is not None and two is not None
    assert two.visual_tokens == 2 * one.visual_tokens
