"""The file of what operating points took on one machine, every run of every point.

NAME.state/points/<board>-<mode>-<backend>-<threads>-<task>.json

It stays where it was measured, and is written and refused as the latency model's file is.
Percentiles are computed when they are asked for: what is kept is what was measured.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tightrope.bundle import Bundle
from tightrope.errors import ProfileError
from tightrope.latency import Stages
from tightrope.latency_file import LatencyKey, RecordKind, read_record, write_record
from tightrope.point import OperatingPoint
from tightrope.profiles.samples import Samples
from tightrope.quality_file import point_of
from tightrope.schemas import versioned
from tightrope.state import state_folder, task_stem

FOLDER = "points"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whose questions the points were asked."""

    task_name: str
    task: str
    """The task's digest."""

    @property
    def stem(self) -> str:
        return task_stem(self.task_name, self.task)


DRAWN = Asked(task_name="drawn requests", task="drawn")
"""No task: one request of a drawn picture and a made-up question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One request from its submission to its last token."""

    stages: Stages
    completion_tokens: int
    occupied_slots: int
    """At its end, per KV head, in the layer that holds most."""
    slot_bytes: int
    """Keys and values allocated at its end."""
    peak_memory_bytes: int | None
    """Of the process; None: not measured."""
    energy_j: float | None = None
    """None: not measured."""

    @property
    def ttft_ms(self) -> float:
        return self.stages.ttft_ms

    @property
    def total_ms(self) -> float:
        return self.stages.total_ms

    @property
    def itl_ms(self) -> float | None:
        """AIPerf's inter-token latency: what follows the first token, a step; None of one token."""
        steps = self.completion_tokens - 1
        return self.stages.decode_ms / steps if steps > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """A point asked over and over, for as long as a power sensor needs to tell what it draws."""

    requests: int
    seconds: float
    energy_j: float
    """Of one request."""
    source: str
    """What measured it: "INA3221 VDD_IN"."""
    held_back: tuple[str, ...] = ()
    """What held the board back meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRuns:
    """All that was measured of one point."""

    text: str
    """The point, as `point_text` writes it."""
    runs: tuple[Run, ...]
    repeated: Repeated | None = None
    """None where no sensor tells what the machine draws."""

    @property
    def point(self) -> OperatingPoint:
        return point_of(self.text)

    @property
    def ttft(self) -> Samples:
        return Samples(tuple(run.ttft_ms for run in self.runs), "ms")

    @property
    def total(self) -> Samples:
        return Samples(tuple(run.total_ms for run in self.runs), "ms")

    @property
    def itl(self) -> Samples | None:
        """None where no answer had a second token."""
        values = tuple(run.itl_ms for run in self.runs if run.itl_ms is not None)
        return Samples(values, "ms") if values else None

    @property
    def stages(self) -> Stages:
        """The mean of each stage: they add up to the mean of the whole."""
        names = Stages.__dataclass_fields__
        sums = {
            name: math.fsum(getattr(run.stages, name) for run in self.runs) / len(self.runs)
            for name in names
        }
        return Stages(**sums)

    @property
    def peak_memory_bytes(self) -> int | None:
        known = [run.peak_memory_bytes for run in self.runs if run.peak_memory_bytes is not None]
        return max(known, default=None)

    @property
    def energy_j(self) -> float | None:
        """Of a request: of those that were repeated, else the mean of runs that all have one."""
        if self.repeated is not None:
            return self.repeated.energy_j
        known = [run.energy_j for run in self.runs if run.energy_j is not None]
        return math.fsum(known) / len(known) if len(known) == len(self.runs) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsRecord:
    """A whole file."""

    key: LatencyKey
    asked: Asked
    date: str
    """ISO 8601, UTC."""
    seconds: float
    packages: dict[str, str]
    points: tuple[PointRuns, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with a schema number."""
        return versioned("points", asdict(self))


def make_points(bundle: Bundle) -> str:
    """The command that measures operating points."""
    return f"`tightrope profile {bundle.path} --task DIR --latency-only`"


def _check(record: PointsRecord) -> None:
    """Raises TypeError or ValueError for what no measurement gives."""
    points = [each.point for each in record.points]
    if not points or len(set(points)) != len(points):
        raise ValueError("it has no points, or one of them twice")
    for each in record.points:
        if not each.runs:
            raise ValueError(f"{each.text} has no runs")
        if each.repeated is not None and not 0 <= each.repeated.energy_j < math.inf:
            raise ValueError(f"{each.text} has an energy below 0, or none")
        for run in each.runs:
            numbers = [*asdict(run.stages).values(), run.peak_memory_bytes or 0, run.energy_j or 0]
            counts = [run.completion_tokens, run.occupied_slots, run.slot_bytes]
            if not all(math.isfinite(number) and number >= 0 for number in [*numbers, *counts]):
                raise ValueError(f"a run of {each.text} has numbers below 0, or none")
            if not run.total_ms:
                raise ValueError(f"a run of {each.text} took no time")


POINTS = RecordKind(schema="points", record=PointsRecord, check=_check, make_one=make_points)


def points_file(bundle: Bundle, key: LatencyKey, asked: Asked) -> Path:
    """Where what was measured for `key` by the questions of `asked` lies."""
    return state_folder(bundle.path) / FOLDER / f"{key.stem}-{asked.stem}.json"


def write_points(bundle: Bundle, record: PointsRecord) -> Path:
    """Write the record whole or not at all; raises ProfileError where it cannot be."""
    return write_record(points_file(bundle, record.key, record.asked), record)


def find_points(bundle: Bundle, key: LatencyKey, task: str | None) -> PointsRecord | None:
    """What was measured here by the task of this digest; of None by the only one there is.

    None where nothing was. Raises ProfileError where the file was made for something else, where it
    is damaged (then it is moved aside), and where several tasks leave it open which is meant.
    """
    files = sorted((state_folder(bundle.path) / FOLDER).glob(f"{key.stem}-*.json"))
    records = [read_record(bundle, file, key, POINTS) for file in files]
    if task is not None:
        return next((record for record in records if record.asked.task == task), None)
    if len(records) > 1:
        names = ", ".join(record.asked.task_name for record in records)
        raise ProfileError(f"points were measured by {names}; name the task")
    return records[0] if records else None
