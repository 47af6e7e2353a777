"""What is compared: bundles, each on the machines that it was measured on, by its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightrope.bundle import Bundle
from tightrope.errors import InputError, ProfileError
from tightrope.latency_file import FOLDER as LATENCY_FOLDER
from tightrope.latency_file import LatencyRecord, make_one, read_latency_file
from tightrope.point import OperatingPoint
from tightrope.profiles.frontier.frontier import measure_quality
from tightrope.profiles.frontier.plans import Deadlines
from tightrope.profiles.frontier.typical import Typical
from tightrope.quality_file import MeasuredPoint, Quality, read_qualities
from tightrope.state import state_folder

if TYPE_CHECKING:
    from tightrope.runtime.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One bundle on one machine, by the questions of one task."""

    bundle: str
    """Its folder."""
    precision: str
    record: LatencyRecord
    quality: Quality
    deadlines: Deadlines
    """What the planner takes there."""

    def measured(self, point: OperatingPoint) -> MeasuredPoint | None:
        """All that was asked at a point; None where nothing was."""
        return next((each for each in self.quality.points if each.point == point), None)

    @property
    def about(self) -> dict[str, str]:
        """What a side is told apart from others by."""
        key = self.record.key
        return {
            "bundle": Path(self.bundle).name,
            "precision": self.precision,
            "board": key.board,
            "power mode": key.power_mode,
            "backend": key.backend,
            "threads": str(key.threads),
            "date": self.record.date,
            "task": self.quality.key.task_name,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        machine = asdict(self.record.key)
        key = self.quality.key
        return {
            "bundle": self.bundle,
            "digest": machine.pop("bundle"),
            "precision": self.precision,
            "machine": machine,
            "date": self.record.date,
            "task": {"name": key.task_name, "digest": key.task},
            "quality": key.measure,
        }


def find_sides(
    asked: Sequence[tuple[Model, Typical]], files: Sequence[Path], tasks: Sequence[str]
) -> list[Side]:
    """Every bundle on every machine with a latency file in its state folder or among `files`.

    asked: each with its typical request. tasks: names; empty: all that quality was measured by.
    Raises ProfileError where a half of a bundle was not measured, for a file of none of the
    bundles, and for files that are damaged; InputError where there is one side only.
    """
    given = [(file, read_latency_file(file)) for file in files]
    digests = {model.bundle.digest for model, _ in asked}
    for file, record in given:
        if record.key.bundle not in digests:
            raise ProfileError(
                f"{file} was measured of bundle {record.key.bundle:.12}…, which is none of those "
                "named; name that one as well"
            )
    sides = []
    for model, request in asked:
        bundle = model.bundle
        records = _records(bundle, [record for _, record in given])
        for quality in _qualities(bundle, tasks):
            for record in records:
                side = Side(
                    bundle=str(bundle.path),
                    precision=bundle.manifest.precision,
                    record=record,
                    quality=quality,
                    deadlines=Deadlines(model, request, record, quality),
                )
                sides.append(side)
    if len(sides) < 2:
        raise InputError(
            f"there is {sides[0].bundle} on {sides[0].record.key} alone, and nothing to compare it "
            "with; name another bundle, or a latency file of another machine or date"
        )
    return sides


def _records(bundle: Bundle, given: Sequence[LatencyRecord]) -> list[LatencyRecord]:
    folder = state_folder(bundle.path) / LATENCY_FOLDER
    here = [read_latency_file(file) for file in sorted(folder.glob("*.json"))]
    found = [record for record in [*here, *given] if record.key.bundle == bundle.digest]
    if not found:
        raise ProfileError(
            f"no latency was measured of {bundle.path}: {make_one(bundle)} does it in two minutes"
        )
    return [record for place, record in enumerate(found) if record not in found[:place]]


def _qualities(bundle: Bundle, tasks: Sequence[str]) -> list[Quality]:
    found = read_qualities(bundle)
    if not found:
        raise ProfileError(
            f"no quality was measured of {bundle.path}: {measure_quality(str(bundle.path))}"
        )
    names = [quality.key.task_name for quality in found]
    for task in tasks:
        if task not in names:
            raise ProfileError(
                f"no quality of {bundle.path} was measured by task {task!r}; there is: "
                f"{', '.join(names)}"
            )
    return [quality for quality in found if not tasks or quality.key.task_name in tasks]
