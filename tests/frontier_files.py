"""Quality files and files of measured points, written as profiles write them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tightrope.latency import Stages
from tightrope.latency_file import LatencyKey
from tightrope.point import OperatingPoint
from tightrope.profiles.latency.measured import Asked, PointRuns, PointsRecord, Run
from tightrope.quality_file import (
    TABLES,
    MeasuredPoint,
    Outcome,
    QualityKey,
    point_text,
    quality_file,
)
from tightrope.schemas import SCHEMAS

TASK = "5a" * 32


def measured_point(
    point: OperatingPoint,
    scores: Sequence[float],
    *,
    beaten_by: OperatingPoint | None = None,
    tokens: int = 4,
) -> MeasuredPoint:
    """A point that was asked the first questions of a task."""
    outcomes = tuple(
        Outcome(
            question=f"q{place:04}",
            score=float(score),
            text="red",
            completion_tokens=tokens,
            thinking_tokens=0,
            finish_reason="stop",
        )
        for place, score in enumerate(scores)
    )
    return MeasuredPoint(point=point, outcomes=outcomes, beaten_by=beaten_by)


def share(right: int, n: int) -> list[float]:
    """`right` of `n` questions answered rightly, spread evenly."""
    return [float((place * right) % n < right) for place in range(n)]


def write_quality(
    bundle: Any,
    points: Sequence[MeasuredPoint],
    *,
    name: str = "scenes",
    digest: str | None = None,
    task: str = TASK,
    types: Mapping[str, str] | None = None,
) -> Path:
    """digest: of the bundle that the file says it is of; None: this one."""
    key = QualityKey(
        bundle=bundle.digest if digest is None else digest,
        task=task,
        task_name=name,
        measure="accuracy",
        max_tokens=16,
    )
    file = quality_file(bundle, key)
    file.parent.mkdir(parents=True, exist_ok=True)
    numbers = {measured.point: number for number, measured in enumerate(points, 1)}
    columns = [field.name for field in fields(Outcome)]
    with closing(sqlite3.connect(file)) as database, database:
        database.executescript(TABLES)
        about: Mapping[str, Any] = {**asdict(key), "schema": SCHEMAS["quality"]}
        rows = [(entry, str(value)) for entry, value in about.items()]
        database.executemany("INSERT INTO about VALUES (?, ?)", rows)
        for measured, number in zip(points, numbers.values(), strict=True):
            beaten_by = None if measured.beaten_by is None else numbers[measured.beaten_by]
            entry = (number, point_text(measured.point), beaten_by)
            database.execute("INSERT INTO points VALUES (?, ?, ?)", entry)
        kinds = list((types or {}).items())
        database.executemany("INSERT INTO questions VALUES (?, ?)", kinds)
        database.executemany(
            f"INSERT INTO outcomes (point, {', '.join(columns)}) VALUES (?{', ?' * len(columns)})",
            [
                (numbers[measured.point], *(getattr(outcome, name) for name in columns))
                for measured in points
                for outcome in measured.outcomes
            ],
        )
    return file


def runs(point: OperatingPoint, ms: float, *, tokens: int = 4, count: int = 20) -> PointRuns:
    """Runs of about `ms` in all, spread by a tenth, three fifths of it before the first token."""
    return PointRuns(
        text=point_text(point),
        runs=tuple(
            Run(
                stages=Stages(
                    image_decode_ms=0.1 * each,
                    preprocess_ms=0.1 * each,
                    vision_ms=0.1 * each,
                    select_ms=0.0,
                    prefill_ms=0.2 * each,
                    host_ms=0.1 * each,
                    decode_ms=0.4 * each,
                ),
                completion_tokens=tokens,
                occupied_slots=40,
                slot_bytes=1 << 20,
                peak_memory_bytes=200 << 20,
            )
            for each in (ms * (1 + 0.1 * place / count) for place in range(count))
        ),
    )


def points_record(key: LatencyKey, points: Sequence[PointRuns], task: str = TASK) -> PointsRecord:
    return PointsRecord(
        key=key,
        asked=Asked(task_name="scenes", task=task),
        date="2026-11-27T12:00:00+00:00",
        seconds=60.5,
        packages={},
        points=tuple(points),
    )
