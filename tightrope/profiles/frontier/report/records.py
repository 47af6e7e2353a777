"""Points as plots and tables read them: flat values, called by their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tightrope.point import in_words
from tightrope.profiles.frontier.domination import Candidate, dominators
from tightrope.profiles.frontier.frontier import Row
from tightrope.profiles.frontier.knee import knee
from tightrope.profiles.frontier.report.report import Report

Record = dict[str, Any]
ON_FRONTIER, DOMINATED, LEFT = "on the frontier", "dominated", "left the race"
STATUSES = (ON_FRONTIER, DOMINATED, LEFT)
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Something that a point costs, and how it is told."""

    name: str
    heading: str
    title: str
    field: str
    """Of a record."""
    ends: tuple[str, str] | None = None
    """Fields between which most requests lie."""
    cost: Callable[[Row], float | None]


def _p95(row: Row) -> float | None:
    return None if row.took is None else row.took.total.p95_ms


def _slot_bytes(row: Row) -> float | None:
    return None if row.count is None else row.count.slot_bytes


def _peak(row: Row) -> float | None:
    return None if row.took is None else row.took.peak_memory_bytes


def _energy(row: Row) -> float | None:
    return None if row.took is None else row.took.energy_j


LATENCY = Axis(
    name="latency",
    heading="Quality against latency",
    title="ms that 95 of 100 answers take",
    field="p95",
    ends=("p50", "p99"),
    cost=_p95,
)
AXES = (
    LATENCY,
    Axis(
        name="slots",
        heading="Quality against memory of keys and values",
        title="MiB of keys and values",
        field="slot_mib",
        cost=_slot_bytes,
    ),
    Axis(
        name="memory",
        heading="Quality against peak memory",
        title="MiB of the process at its peak",
        field="peak_mib",
        cost=_peak,
    ),
    Axis(
        name="energy",
        heading="Quality against energy",
        title="joules a request",
        field="energy_j",
        cost=_energy,
    ),
)


def records(report: Report) -> list[Record]:
    """All points, the fastest first."""
    return [_record(report, number, row) for number, row in enumerate(report.frontier.rows, 1)]


def records_by(report: Report, axis: Axis) -> list[Record]:
    """Points whose quality and cost are known, each with its status and whether it is the knee."""
    rows = report.frontier.rows
    candidates = [
        Candidate(
            cost=None if row.beaten_by is not None else axis.cost(row),
            worth=None if row.quality is None else (row.quality,),
        )
        for row in rows
    ]
    found = []
    for row, record, above in zip(rows, records(report), dominators(candidates), strict=True):
        if row.quality is None or axis.cost(row) is None:
            continue
        status = LEFT if row.beaten_by is not None else ON_FRONTIER if above is None else DOMINATED
        found.append({**record, "status": status, "knee": False})
    best = sorted(
        (record for record in found if record["status"] == ON_FRONTIER),
        key=lambda record: (record[axis.field], record["quality"]),
    )
    place = knee([each[axis.field] for each in best], [each["quality"] for each in best])
    if place is not None:
        best[place]["knee"] = True
    return found


def stage_records(report: Report) -> list[Record]:
    """A record for each point and each stage before its first token."""
    return [
        {"label": f"{number}: {in_words(row.point)}", "number": number}
        | {"stage": stage, "place": place, "ms": ms}
        for number, row in enumerate(report.frontier.rows, 1)
        if row.took is not None
        for place, (stage, ms) in enumerate(row.took.first_token_stages.items())
    ]


def type_records(report: Report) -> list[Record]:
    """A record for each point of the frontier and each type of question."""
    numbers = report.numbers
    return [
        {
            "number": numbers[row.point],
            "name": in_words(row.point),
            "type": name,
            "questions": found.n,
            "share": found.accuracy,
            "low": found.interval[0],
            "high": found.interval[1],
        }
        for row in report.best
        for name, found in report.by_type(row).items()
        if found.interval is not None
    ]


def knee_of(found: Sequence[Record]) -> int | None:
    """Number of the point at the knee."""
    return next((record["number"] for record in found if record["knee"]), None)


def _record(report: Report, number: int, row: Row) -> Record:
    took, count, interval = row.took, row.count, row.interval
    record: Record = {
        "number": number,
        "name": in_words(row.point),
        "quality": row.quality,
        "low": None if interval is None else interval[0],
        "high": None if interval is None else interval[1],
        "questions": row.questions,
        "needed": report.needed_ms.get(row.point),
        "slots": None if count is None else count.occupied_slots,
        "slot_mib": None if count is None else count.slot_bytes / MEBIBYTE,
        "peak_mib": None,
        "energy_j": None,
        "source": "none",
    }
    if took is not None:
        peak = took.peak_memory_bytes
        record |= {
            "ttft50": took.ttft.p50_ms,
            "ttft95": took.ttft.p95_ms,
            "p50": took.total.p50_ms,
            "p95": took.total.p95_ms,
            "p99": took.total.p99_ms,
            "peak_mib": None if peak is None else peak / MEBIBYTE,
            "energy_j": took.energy_j,
            "source": took.source,
        }
    return record
