"""`tightrope task`: how rightly a bundle answers questions whose answers are known."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tightrope.cli.options import (
    Backend,
    BundlePath,
    Json,
    KeepText,
    KvBudget,
    Policy,
    Resolution,
    Selector,
    Threads,
    operating_point,
)
from tightrope.cli.output import print_json, print_pairs, print_table, progress_on_terminal
from tightrope.cli.task_make import make
from tightrope.cli.task_show import show
from tightrope.errors import InputError

if TYPE_CHECKING:
    from tightrope.profiles.task.score import Report, Tally

app = typer.Typer(no_args_is_help=True, help="Score a bundle on questions with known answers.")
app.command("make")(make)
app.command("show")(show)

_COLUMNS = ("n", "accuracy", "95 % interval")


@app.command("score")
def score(
    bundle: BundlePath,
    task: Annotated[Path, typer.Option(metavar="DIR", help="Folder with images and task.jsonl.")],
    selector: Selector = None,
    keep: KeepText = None,
    policy: Policy = None,
    kv_budget: KvBudget = None,
    resolution: Resolution = None,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="Longest answer.")] = 256,
    thinking: Annotated[
        str | None,
        typer.Option(metavar="on|off", help="Whether it thinks first; else the template decides."),
    ] = None,
    types: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only questions of these types.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Only the first so many of them.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Count by this field of info too; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="For selectors that draw.")] = 0,
    records: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each answer as a line of JSON.")
    ] = None,
    backend: Backend = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Ask a bundle the questions of a task, and count right answers."""
    point = operating_point(
        selector=selector, keep=keep, policy=policy, kv_budget=kv_budget, resolution=resolution
    )
    if records is not None and not records.absolute().parent.is_dir():
        raise InputError(f"--records is {str(records)!r}, whose folder does not exist")

    import tightrope
    from tightrope.profiles.task.score import ScoreConfig, score_task
    from tightrope.profiles.task.task import read_task, write_lines

    config = ScoreConfig(
        point=point,
        max_tokens=max_tokens,
        thinking=thinking,
        types=() if types is None else tuple(part.strip() for part in types.split(",")),
        limit=limit,
        by=tuple(by or ()),
        seed=seed,
    )
    found = read_task(task)
    model = tightrope.load(bundle, backend=backend, threads=threads)
    with progress_on_terminal() as progress:
        report = score_task(model, found, config, progress)
    if records is not None:
        write_lines(records, (asdict(record) for record in report.records))
    if json:
        named = {"bundle": str(bundle), "task": str(task), "thinking": thinking}
        print_json(report.to_dict() | named)
    else:
        _print_report(report, f"{bundle} on {task}")


@app.command("import")
def import_(
    layout: Annotated[
        str, typer.Argument(metavar="LAYOUT", help="vqav2, textvqa, pope or mmbench.")
    ],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The file with the questions.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with the pictures; MMBench has its own."),
    ] = None,
    json: Json = False,
) -> None:
    """Write questions of another layout as a task; pictures are linked or copied."""
    from tightrope.profiles.task.layouts import convert

    task = convert(layout, source, images, output)
    pictures = {image for item in task.items for image in item.images}
    counts = {"questions": len(task.items), "images": len(pictures)}
    if json:
        print_json({"schema": 1, "task": str(output), **counts})
    else:
        print_pairs(
            "Imported", [("task", str(output)), *((k, f"{v:,}") for k, v in counts.items())]
        )


def _print_report(report: Report, title: str) -> None:
    rows = [(name, *_cells(tally)) for name, tally in report.types.items()]
    rows.append(("all", *_cells(report.overall)))
    print_table(title, ("type", *_COLUMNS), rows, numbers=_COLUMNS)
    for field, tallies in report.by.items():
        rows = [(value, *_cells(tally)) for value, tally in tallies.items()]
        print_table("", (field, *_COLUMNS), rows, numbers=_COLUMNS)
    print_pairs("", _spent(report))


def _cells(tally: Tally) -> tuple[str, str, str]:
    if tally.accuracy is None or tally.interval is None:
        return str(tally.n), "", ""
    low, high = tally.interval
    return str(tally.n), f"{tally.accuracy:.3f}", f"{low:.3f} to {high:.3f}"


def _spent(report: Report) -> list[tuple[str, str]]:
    reasons = (f"{reason} {share:.1%}" for reason, share in report.finish_reasons.items())
    rows = [
        ("visual tokens kept", f"{report.visual_tokens_kept:.1f}"),
        ("prompt tokens", f"{report.prompt_tokens:.1f}"),
        ("completion tokens", f"{report.completion_tokens:.1f}"),
        ("finished", ", ".join(reasons)),
        ("took", f"{report.wall_s:.1f} s"),
    ]
    if report.without_reference:
        rows.insert(0, ("without a reference", str(report.without_reference)))
    return rows
