"""`tightrope frontier`: what operating points are worth and take here, and which one to use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tightrope.budget import Budget
from tightrope.cli.frontier_compare import compare
from tightrope.cli.frontier_live import show_live
from tightrope.cli.frontier_report import report
from tightrope.cli.options import (
    Backend,
    BundlePath,
    Deadline,
    Energy,
    FirstToken,
    Images,
    Json,
    MinQuality,
    Question,
    Task,
    Threads,
    parse_duration_ms,
)
from tightrope.cli.output import mebibytes, print_json, print_pairs, print_table
from tightrope.errors import InputError
from tightrope.point import in_words

if TYPE_CHECKING:
    from tightrope.profiles.frontier.choose import Choice
    from tightrope.profiles.frontier.frontier import Frontier, Row
    from tightrope.profiles.frontier.took import Percentiles

app = typer.Typer(no_args_is_help=True, help="What points are worth and take on this machine.")

Slos = Annotated[
    list[str] | None,
    typer.Option(
        "--slo",
        metavar="NAME:TIME",
        help="Count measured requests that keep it, such as ttft:500ms, itl:30ms or total:900ms; "
        "may be repeated.",
    ),
]
Live = Annotated[
    bool,
    typer.Option(
        "--live", metavar="", help="Instead: what requests took here lately beside the profile."
    ),
]
NOT_MEASURED = "not measured"


@app.command("show")
def show(
    bundle: BundlePath,
    task: Task = None,
    prompt: Question = None,
    image: Images = None,
    slo: Slos = None,
    live: Live = False,
    backend: Backend = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """List points by what they take, the dominated ones marked."""
    if live:
        if task is not None or prompt is not None or image or slo:
            raise InputError(
                "--live tells of requests that came; it takes no question and no --slo"
            )
        show_live(bundle, backend, threads, json=json)
        return
    slos = parse_slos(slo or [])
    frontier = _made(bundle, task, (prompt, image or []), slos, backend, threads)
    if json:
        print_json(frontier.to_dict())
        return
    print_frontier(frontier)


@app.command("best")
def best(
    bundle: BundlePath,
    deadline: Deadline = None,
    first_token: FirstToken = None,
    energy: Energy = None,
    min_quality: MinQuality = None,
    task: Task = None,
    prompt: Question = None,
    image: Images = None,
    backend: Backend = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Name the point to use: the fastest of those as good as the best within the budget."""
    budget = Budget(
        deadline_ms=_duration("--deadline", deadline),
        first_token_ms=_duration("--first-token", first_token),
        energy_j=energy,
        min_quality=min_quality,
        task=task,
    )

    from tightrope.profiles.frontier.choose import choose

    frontier = _made(bundle, task, (prompt, image or []), {}, backend, threads)
    choice = choose(frontier, budget)
    if json:
        print_json(choice.to_dict(frontier, budget))
        return
    _print_choice(frontier, choice)


app.command("report")(report)
app.command("compare")(compare)


def parse_slos(texts: Sequence[str]) -> dict[str, float]:
    """ "ttft:500ms" and the like, as milliseconds by AIPerf's names; raises InputError."""
    from tightrope.profiles.latency.goodput import metric

    slos: dict[str, float] = {}
    for text in texts:
        name, colon, limit = text.partition(":")
        if not colon:
            raise InputError(f"--slo is {text!r}; accepted: NAME:TIME, such as ttft:500ms")
        slos[metric(name)] = parse_duration_ms(f"--slo {name}", limit)
    return slos


def _duration(name: str, text: str | None) -> float | None:
    return None if text is None else parse_duration_ms(name, text)


def _made(
    bundle: Path,
    task: str | None,
    asked: tuple[str | None, Sequence[str]],
    slos: dict[str, float],
    backend: str,
    threads: int | None,
) -> Frontier:
    import tightrope
    from tightrope.profiles.frontier.join import make_frontier
    from tightrope.profiles.frontier.typical import typical

    model = tightrope.load(bundle, backend=backend, threads=threads, live=False)
    return make_frontier(model, typical(model, *asked), task=task, slos=slos)


def print_frontier(frontier: Frontier) -> None:
    """The table of points, and what is missing."""
    goodput = bool(frontier.slos)
    numbers = ["quality", "95 % interval", "n", *_TIMES, "slots", "keys and values", "peak memory"]
    energy = any(row.took is not None and row.took.energy_j is not None for row in frontier.rows)
    if energy:
        numbers.append("energy")
    if goodput:
        numbers.append("goodput")
    print_table(
        f"{frontier.bundle}: {_by_task(frontier)}, {frontier.key}",
        ("point", *numbers, "times", ""),
        [
            [
                *_cells(row),
                *([_energy(row)] if energy else []),
                *([_goodput(row)] if goodput else []),
                _source(row),
                _mark(row),
            ]
            for row in frontier.rows
        ],
        numbers=numbers,
    )
    if (agreement := frontier.agreement) is not None:
        print(f"\n{agreement.in_words()}")
    _print_notes(frontier)


_TIMES = ("TTFT p50", "p95", "total p50", " p95", "p99 ms")


def _cells(row: Row) -> list[str]:
    took, count = row.took, row.count
    quality, interval = row.quality, row.interval
    times = [f"{ms:.1f}" for ms in _figures(took.ttft, took.total)] if took else ["-"] * 5
    return [
        in_words(row.point),
        "assumed" if quality is None else f"{quality:.3f}",
        "-" if interval is None else f"{interval[0]:.3f}..{interval[1]:.3f}",
        str(row.questions),
        *times,
        "-" if count is None else str(count.occupied_slots),
        "-" if count is None else mebibytes(count.slot_bytes),
        _or_not(None if took is None else took.peak_memory_bytes),
    ]


def _figures(ttft: Percentiles, total: Percentiles) -> list[float]:
    return [ttft.p50_ms, ttft.p95_ms, total.p50_ms, total.p95_ms, total.p99_ms]


def _or_not(num_bytes: int | None) -> str:
    return NOT_MEASURED if num_bytes is None else mebibytes(num_bytes)


def _energy(row: Row) -> str:
    joules = None if row.took is None else row.took.energy_j
    return NOT_MEASURED if joules is None else f"{joules:.2f} J"


def _goodput(row: Row) -> str:
    found = None if row.took is None else row.took.goodput
    if found is None:
        return NOT_MEASURED
    return f"{found.goodput:.2f}/s, {found.good_request_count} of {found.request_count}"


def _source(row: Row) -> str:
    return "none" if row.took is None else row.took.source


def _mark(row: Row) -> str:
    if row.beaten_by is not None:
        return f"left the race for {in_words(row.beaten_by)}"
    if row.dominated_by is not None:
        return f"dominated by {in_words(row.dominated_by)}"
    return "*" if row.on_frontier else ""


def _by_task(frontier: Frontier) -> str:
    task = frontier.task
    return "quality: assumed" if task is None else f"{task.measure} by {task.task_name}"


def _print_choice(frontier: Frontier, choice: Choice) -> None:
    row = choice.row
    took = row.took
    assert took is not None, "a point without a time fits no budget"
    stages = {**took.first_token_stages, "decode": took.stages.decode_ms}
    quality = "assumed"
    if row.quality is not None and row.interval is not None:
        low, high = row.interval
        quality = f"{row.quality:.3f} ({low:.3f}..{high:.3f}), {row.questions} questions"
    print_pairs(
        f"{frontier.bundle}: {in_words(row.point)}",
        [
            ("quality", quality),
            ("first token, p50, p95, p99", _three(took.ttft)),
            ("in all, p50, p95, p99", _three(took.total)),
            ("of these, means", ", ".join(f"{name} {ms:.1f}" for name, ms in stages.items())),
            ("times", f"{took.source}, {took.runs} runs" if took.runs else took.source),
            ("energy", _energy(row)),
            ("best within the budget", in_words(choice.best.point)),
            ("not told apart from it", str(len(choice.alike))),
            ("within the budget", f"{choice.fitting} of {len(frontier.rows)} points"),
        ],
    )
    _print_notes(frontier)


def _three(times: Percentiles) -> str:
    return f"{times.p50_ms:.1f}, {times.p95_ms:.1f}, {times.p99_ms:.1f} ms"


def _print_notes(frontier: Frontier) -> None:
    notes = [*frontier.notes]
    notes += [f"{in_words(row.point)}: {note}" for row in frontier.rows for note in row.notes]
    if notes:
        print_pairs("\nNotes", [("!", note) for note in notes])
