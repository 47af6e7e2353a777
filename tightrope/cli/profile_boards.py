"""What `tightrope profile --scheduler` does: both halves of a profile on the workers of others."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tightrope.cli.profile_latency import print_latency
from tightrope.cli.profile_quality import print_quality

if TYPE_CHECKING:
    from tightrope.latency_file import LatencyRecord
    from tightrope.profiles.latency.config import LatencyConfig
    from tightrope.profiles.quality.config import QualityConfig
    from tightrope.profiles.quality.report import Profiled
    from tightrope.profiles.task.task import Task
    from tightrope.progress import Progress
    from tightrope.runtime.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """Which workers measure."""

    url: str
    board: str | None
    power_mode: str | None
    unencrypted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came back."""

    latencies: tuple[LatencyRecord, ...]
    """One for each kind of board and mode."""
    profiled: Profiled | None


def measure_on_boards(
    model: Model,
    where: Scheduler,
    latency: LatencyConfig | None,
    quality: tuple[Task, QualityConfig] | None,
    progress: Progress,
) -> Measured:
    """Latency on one worker of each kind, then quality on all of them.

    Latency files are kept on their boards and copied here, under their boards' names.
    """
    from tightrope.latency_file import write_latency
    from tightrope.profiles.boards.boards import connected
    from tightrope.profiles.quality.profile import profile_quality

    with connected(
        where.url,
        model,
        board=where.board,
        power_mode=where.power_mode,
        unencrypted=where.unencrypted,
    ) as boards:
        started = time.monotonic()
        records = [] if latency is None else boards.latencies(latency, progress)
        for record in records:
            write_latency(model.bundle, record)
        profiled = None
        if quality is not None:
            task, config = quality
            config = config.after((time.monotonic() - started) / 60)
            profiled = profile_quality(model, task, config, ask=boards.ask, progress=progress)
            profiled = replace(profiled, notes=(*profiled.notes, *boards.notes))
    return Measured(latencies=tuple(records), profiled=profiled)


def print_measured(model: Model, measured: Measured) -> None:
    """Each board's latency, then what points are worth."""
    for record in measured.latencies:
        print_latency(model.bundle, record)
    if measured.profiled is not None:
        print_quality(measured.profiled)
