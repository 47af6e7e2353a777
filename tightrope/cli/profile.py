"""`tightrope profile`: what points are worth on a task, and what requests take on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tightrope.cli.options import (
    Backend,
    BundlePath,
    Json,
    Threads,
    Unencrypted,
    option,
    parse_kv_budget,
)
from tightrope.cli.output import print_json, progress_on_terminal
from tightrope.cli.profile_boards import (
    Measured,
    Scheduler,
    measure_on_boards,
    print_measured,
)
from tightrope.cli.profile_latency import print_latency
from tightrope.cli.profile_points import measure_task_points, print_points
from tightrope.cli.profile_quality import print_quality
from tightrope.configs import default_of
from tightrope.errors import InputError
from tightrope.profiles.latency.config import LatencyConfig
from tightrope.profiles.quality.config import QualityConfig

if TYPE_CHECKING:
    from tightrope.latency_file import LatencyRecord
    from tightrope.profiles.latency.measured import PointsRecord
    from tightrope.profiles.quality.report import Profiled
    from tightrope.profiles.task.task import Task
    from tightrope.progress import Progress
    from tightrope.runtime.model import Model


def profile(
    bundle: BundlePath,
    task: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with images and task.jsonl: what quality is."),
    ] = None,
    quality_only: Annotated[
        bool, typer.Option("--quality-only", metavar="", help="What points are worth on the task.")
    ] = False,
    latency_only: Annotated[
        bool,
        typer.Option(
            "--latency-only", metavar="", help="What requests take here; by --task, its points too."
        ),
    ] = False,
    points: Annotated[int, option(QualityConfig, "points", metavar="N")] = default_of(
        QualityConfig, "points"
    ),
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            help="Longest time in all, points not run from end to end; if not: 2 for latency, and "
            "until all is asked and run.",
        ),
    ] = None,
    max_tokens: Annotated[int, option(QualityConfig, "max_tokens", metavar="N")] = default_of(
        QualityConfig, "max_tokens"
    ),
    limit: Annotated[int | None, option(QualityConfig, "limit", metavar="N")] = None,
    kv_budgets: Annotated[str | None, option(QualityConfig, "kv_budgets", metavar="A,B")] = None,
    name: Annotated[str | None, option(QualityConfig, "name", metavar="NAME")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="tls://HOST:PORT",
            help="Measure on the workers of this Dask scheduler: `tightrope profile-worker`.",
        ),
    ] = None,
    board: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only workers on this board.")
    ] = None,
    power_mode: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only workers in this mode.")
    ] = None,
    unencrypted: Unencrypted = False,
    backend: Backend = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure what operating points are worth on a task, and what requests take on this machine.

    Both where a task is given. Quality travels with the bundle and can be measured anywhere;
    latency holds for this machine alone. A measurement that was ended goes on where it was.
    """
    _check_halves(task, quality_only, latency_only)
    where = _scheduler(scheduler, board, power_mode, unencrypted)
    budgets = () if kv_budgets is None else parse_kv_budget(kv_budgets)
    quality = QualityConfig(
        points=points,
        kv_budgets=budgets if isinstance(budgets, tuple) else (budgets,),
        minutes=minutes,
        max_tokens=max_tokens,
        limit=limit,
        name=name,
    )
    latency = None if quality_only else _latency_config(minutes, both=task is not None)

    import tightrope
    from tightrope.profiles.task.task import read_task
    from tightrope.state import held

    found = None if task is None else read_task(task)
    model = tightrope.load(bundle, backend=backend, threads=threads, live=False)
    record = profiled = points_record = None
    with held(bundle), progress_on_terminal() as progress:
        if where is not None:
            asked = None if found is None or latency_only else (found, quality)
            measured = measure_on_boards(model, where, latency, asked, progress)
            _print_boards(model, measured, json=json)
            return
        started = time.monotonic()
        if latency is not None:  # first: then the race knows who is slower
            record = _measure_latency(model, latency, progress)
        if found is not None and not latency_only:
            spent = (time.monotonic() - started) / 60
            profiled = _measure_quality(model, found, quality.after(spent), progress)
        # A limit of minutes is for what cannot be left out.
        if found is not None and not quality_only and (latency_only or minutes is None):
            points_record = measure_task_points(model, found, name, max_tokens, progress)
    if json:
        print_json(_told(record, profiled, points_record))
        return
    if record is not None:
        print_latency(model.bundle, record)
    if points_record is not None:
        print_points(model.bundle, points_record)
    if profiled is not None:
        print_quality(profiled)
    elif not latency_only:
        print("\nlatency alone was measured: quality needs questions, name their folder by --task")


def _scheduler(
    url: str | None, board: str | None, power_mode: str | None, unencrypted: bool
) -> Scheduler | None:
    if url is None:
        if board is not None or power_mode is not None or unencrypted:
            raise InputError(
                "--board, --power-mode and --unencrypted choose workers; accepted: "
                "--scheduler beside them"
            )
        return None
    return Scheduler(url=url, board=board, power_mode=power_mode, unencrypted=unencrypted)


def _print_boards(model: Model, measured: Measured, *, json: bool) -> None:
    if not json:
        print_measured(model, measured)
        return
    halves: dict[str, Any] = {"latencies": [one.to_dict() for one in measured.latencies]}
    if measured.profiled is not None:
        halves["quality"] = measured.profiled.to_dict()
    print_json(halves)


def _check_halves(task: Path | None, quality_only: bool, latency_only: bool) -> None:
    if quality_only and latency_only:
        raise InputError("--quality-only and --latency-only exclude each other; leave out both")
    if quality_only and task is None:
        raise InputError("--quality-only needs questions; name their folder by --task")


def _latency_config(minutes: float | None, both: bool) -> LatencyConfig:
    """Of the time for both halves latency takes half at most."""
    if minutes is None:
        return LatencyConfig()
    if not both:
        return LatencyConfig(minutes=minutes)
    return LatencyConfig(minutes=min(minutes / 2, LatencyConfig().minutes))


def _measure_latency(model: Model, config: LatencyConfig, progress: Progress) -> LatencyRecord:
    from tightrope.latency_file import write_latency
    from tightrope.profiles.latency.profile import profile_latency

    record = profile_latency(model, config, progress=progress)
    write_latency(model.bundle, record)
    return record


def _measure_quality(
    model: Model, task: Task, config: QualityConfig, progress: Progress
) -> Profiled:
    from tightrope.profiles.quality.profile import profile_quality

    return profile_quality(model, task, config, progress=progress)


def _told(
    record: LatencyRecord | None, profiled: Profiled | None, points: PointsRecord | None
) -> dict[str, Any]:
    """One part as it is, several by their names."""
    halves = {"latency": record, "quality": profiled, "points": points}
    told = {name: half.to_dict() for name, half in halves.items() if half is not None}
    return told if len(told) > 1 else next(iter(told.values()))
