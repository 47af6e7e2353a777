"""Files of measured points, and the figures that come from their runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tightrope.errors import InputError, ProfileError
from tightrope.latency import Stages
from tightrope.point import OperatingPoint
from tightrope.profiles.latency.goodput import goodput, metric
from tightrope.profiles.latency.measured import (
    Asked,
    PointRuns,
    PointsRecord,
    Run,
    find_points,
    points_file,
    write_points,
)
from tightrope.quality_file import point_text

SCENES = Asked(task_name="Scenes, dev", task="ab" * 32)
OTHER = Asked(task_name="other", task="cd" * 32)


def run(ms: float, tokens: int = 3, **more: Any) -> Run:
    """`ms` to the first token, a tenth of it for the others."""
    stages = Stages(
        image_decode_ms=0.1 * ms,
        preprocess_ms=0.1 * ms,
        vision_ms=0.3 * ms,
        select_ms=0.1 * ms,
        prefill_ms=0.3 * ms,
        host_ms=0.1 * ms,
        decode_ms=0.1 * ms,
    )
    known = {"occupied_slots": 40, "slot_bytes": 4096, "peak_memory_bytes": int(ms) << 20}
    return Run(stages=stages, completion_tokens=tokens, **(known | more))


RUNS = PointRuns(text=point_text(OperatingPoint()), runs=tuple(run(100.0 + i) for i in range(20)))
PRUNED = PointRuns(
    text=point_text(OperatingPoint(selector="visionzip", keep="25%", thinking_tokens=8)),
    runs=tuple(run(50.0 + i, tokens=1) for i in range(20)),
)


@pytest.fixture
def bundle(tmp_path: Path) -> Any:
    return SimpleNamespace(path=tmp_path / "x.bundle")


@pytest.fixture
def record(synthetic: Any) -> PointsRecord:
    return PointsRecord(
        key=synthetic.KEY,
        asked=SCENES,
        date="2026-11-27T12:00:00+00:00",
        seconds=60.5,
        packages={"numpy": "2.3"},
        points=(RUNS, PRUNED),
    )


def test_figures_are_those_of_the_runs() -> None:
    assert RUNS.ttft.median == pytest.approx(109.5)
    assert RUNS.total.percentile(95) == pytest.approx(1.1 * 118.05)
    assert RUNS.itl is not None and RUNS.itl.median == pytest.approx(10.95 / 2)
    assert PRUNED.itl is None
    assert RUNS.stages.ttft_ms == pytest.approx(RUNS.ttft.mean)
    assert RUNS.peak_memory_bytes == 119 << 20
    assert RUNS.energy_j is None
    known = replace(RUNS, runs=(run(1.0, energy_j=2.0), run(1.0, energy_j=4.0)))
    assert known.energy_j == 3.0
    assert replace(known, runs=(*known.runs, run(1.0))).energy_j is None


def test_a_record_is_read_back_as_it_was_written(bundle: Any, record: PointsRecord) -> None:
    file = write_points(bundle, record)
    assert file.name == "orin_nano_8gb-25w-onnxruntime-2-scenes_dev-abababababab.json"
    assert file.parent.name == "points"
    assert find_points(bundle, record.key, SCENES.task) == record
    assert find_points(bundle, record.key, None) == record
    assert record.points[1].point == OperatingPoint(
        selector="visionzip", keep="25%", thinking_tokens=8
    )


def test_tasks_have_files_of_their_own(bundle: Any, record: PointsRecord) -> None:
    write_points(bundle, record)
    assert find_points(bundle, record.key, OTHER.task) is None
    write_points(bundle, replace(record, asked=OTHER, points=(PRUNED,)))
    found = find_points(bundle, record.key, OTHER.task)
    assert found is not None and found.points == (PRUNED,)
    with pytest.raises(ProfileError, match="measured by other, Scenes, dev; name the task"):
        find_points(bundle, record.key, None)


def test_where_nothing_was_measured_there_is_nothing(bundle: Any, record: PointsRecord) -> None:
    assert find_points(bundle, record.key, None) is None
    write_points(bundle, record)
    assert find_points(bundle, replace(record.key, threads=4), SCENES.task) is None


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
def test_a_file_of_something_else_is_refused_and_stays(
    bundle: Any, record: PointsRecord, name: str, value: Any
) -> None:
    elsewhere = write_points(bundle, replace(record, key=replace(record.key, **{name: value})))
    copied = points_file(bundle, record.key, SCENES)
    os.replace(elsewhere, copied)
    before = copied.read_bytes()
    with pytest.raises(ProfileError, match=f"was measured for {name} .*--latency-only"):
        find_points(bundle, record.key, SCENES.task)
    assert copied.read_bytes() == before


def edited(change: Callable[[Any], object]) -> Callable[[Path], object]:
    def spoil(file: Path) -> None:
        values = json.loads(file.read_text(encoding="utf-8"))
        change(values)
        file.write_text(json.dumps(values), encoding="utf-8")

    return spoil


def first_run(values: Any) -> Any:
    return values["points"][0]["runs"][0]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "no points": edited(lambda values: values.update(points=[])),
    "a point twice": edited(lambda values: values["points"].append(values["points"][0])),
    "no point": edited(lambda values: values["points"][0].update(text='{"mood": 1}')),
    "an impossible point": edited(lambda values: values["points"][0].update(text='{"keep": 4}')),
    "no runs": edited(lambda values: values["points"][0].update(runs=[])),
    "negative": edited(lambda values: first_run(values)["stages"].update(vision_ms=-1.0)),
    "no number": edited(lambda values: first_run(values)["stages"].update(vision_ms=float("nan"))),
    "no time": edited(
        lambda values: first_run(values)["stages"].update(
            dict.fromkeys(first_run(values)["stages"], 0.0)
        )
    ),
    "negative tokens": edited(lambda values: first_run(values).update(completion_tokens=-1)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_moved_aside_and_said(
    bundle: Any, record: PointsRecord, damage: str
) -> None:
    file = write_points(bundle, record)
    DAMAGES[damage](file)
    spoilt = file.read_bytes()
    with pytest.raises(ProfileError, match=r"is damaged .*damaged-1; .*--latency-only"):
        find_points(bundle, record.key, SCENES.task)
    assert file.with_name(f"{file.name}.damaged-1").read_bytes() == spoilt
    assert find_points(bundle, record.key, SCENES.task) is None


def test_goodput_counts_requests_that_keep_every_promise() -> None:
    runs = [run(100.0), run(200.0), run(300.0)]
    found = goodput(runs, {metric("ttft"): 250.0, metric("request_latency"): 200.0})
    assert (found.good_request_count, found.request_count) == (1, 3)
    assert found.goodput == pytest.approx(1 / 0.66)
    assert goodput(runs, {metric("itl"): 10.0}).good_request_count == 2
    # One token has none between.
    assert goodput([run(100.0, tokens=1)], {metric("itl"): 0.1}).good_request_count == 1


def test_a_metric_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="ttft, itl, total, time_to_first_token"):
        metric("tpot")
