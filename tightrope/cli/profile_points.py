"""What `tightrope profile --task` does and says of what points take, measured from end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightrope.cli.output import mebibytes, print_table
from tightrope.point import in_words

if TYPE_CHECKING:
    from tightrope.bundle import Bundle
    from tightrope.profiles.latency.measured import PointsRecord
    from tightrope.profiles.task.task import Task
    from tightrope.progress import Progress
    from tightrope.runtime.model import Model


def measure_task_points(
    model: Model, task: Task, name: str | None, max_tokens: int, progress: Progress
) -> PointsRecord:
    """Every point that is still in the task's race, or that a planner would assume, and its file.

    All are asked the same questions, one a round, scattered over the task.
    """
    from tightrope.profiles.latency.measure_points import LEAST_RUNS, measure_points
    from tightrope.profiles.latency.measured import Asked, write_points
    from tightrope.profiles.measure import Request
    from tightrope.profiles.task.task import task_digest
    from tightrope.quality_file import read_qualities
    from tightrope.runtime.candidates import candidates_of

    digest = task_digest(task)
    qualities = read_qualities(model.bundle)
    quality = next((found for found in qualities if found.key.task == digest), None)
    points = [entry.point for entry in candidates_of(model.bundle.manifest, quality)]
    step = max(1, len(task.items) // LEAST_RUNS)
    requests = [
        Request(
            name=item.id,
            prompt=item.messages,
            images=item.stills,
            frames=item.frames,
            max_tokens=max_tokens,
        )
        for item in task.items[::step]
    ]
    asked = Asked(task_name=name or task.folder.resolve().name, task=digest)
    record = measure_points(model, requests, points, asked, progress=progress)
    write_points(model.bundle, record)
    return record


def print_points(bundle: Bundle, record: PointsRecord) -> None:
    """One row a point, and the file."""
    from tightrope.profiles.latency.measured import points_file

    columns = ("TTFT p50", "p95", "total p50", " p95", "p99 ms", "slots", "peak memory", "energy")
    rows = []
    for found in record.points:
        times = (
            *(found.ttft.percentile(percent) for percent in (50, 95)),
            *(found.total.percentile(percent) for percent in (50, 95, 99)),
        )
        peak = found.peak_memory_bytes
        rows.append(
            (
                in_words(found.point),
                *(f"{ms:.1f}" for ms in times),
                str(max(run.occupied_slots for run in found.runs)),
                "not measured" if peak is None else mebibytes(peak),
                "not measured" if found.energy_j is None else f"{found.energy_j:.2f} J",
            )
        )
    title = f"\n{len(record.points[0].runs)} runs of each point, from end to end"
    print_table(title, ("point", *columns), rows, numbers=columns)
    print(f"\nwritten to {points_file(bundle, record.key, record.asked)}")
