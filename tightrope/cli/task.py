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
    Thinking,
    ThinkingTokens,
    Threads,
    operating_point,
    option,
    parse_thinking,
)
from tightrope.cli.output import print_json, print_pairs, print_table, progress_on_terminal
from tightrope.cli.task_make import make
from tightrope.cli.task_show import show
from tightrope.configs import default_of
from tightrope.errors import InputError
from tightrope.folders import reaching
from tightrope.profiles.task.score_config import ScoreConfig
from tightrope.schemas import versioned

if TYPE_CHECKING:
    from tightrope.profiles.task.report import Report
    from tightrope.profiles.task.tally import Tally

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
    max_tokens: Annotated[int, option(ScoreConfig, "max_tokens", metavar="N")] = default_of(
        ScoreConfig, "max_tokens"
    ),
    thinking: Thinking = None,
    thinking_tokens: ThinkingTokens = None,
    types: Annotated[str | None, option(ScoreConfig, "types", metavar="A,B")] = None,
    limit: Annotated[int | None, option(ScoreConfig, "limit", metavar="N")] = None,
    by: Annotated[
        list[str] | None, option(ScoreConfig, "by", metavar="FIELD", repeated=True)
    ] = None,
    seed: Annotated[int, option(ScoreConfig, "seed", metavar="N")] = default_of(
        ScoreConfig, "seed"
    ),
    records: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each answer as a line of JSON.")
    ] = None,
    backend: Backend = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Ask a bundle the questions of a task, and count right answers."""
    point = operating_point(
        selector=selector,
        keep=keep,
        policy=policy,
        kv_budget=kv_budget,
        resolution=resolution,
        thinking_tokens=thinking_tokens,
    )
    if records is not None:
        with reaching("--records", records):
            if not records.absolute().parent.is_dir():
                raise InputError(f"--records is {str(records)!r}, whose folder does not exist")

    import tightrope
    from tightrope.profiles.task.score import score_task
    from tightrope.profiles.task.task import read_task, write_lines

    config = ScoreConfig(
        point=point,
        max_tokens=max_tokens,
        thinking=parse_thinking(thinking),
        types=() if types is None else tuple(part.strip() for part in types.split(",")),
        limit=limit,
        by=tuple(by or ()),
        seed=seed,
    )
    found = read_task(task)
    model = tightrope.load(bundle, backend=backend, threads=threads, live=False)
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
        str, typer.Argument(metavar="LAYOUT", help="vqav2, textvqa, pope, mmbench or easy-vqa.")
    ],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The file with the questions.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with the pictures, where the layout has none."),
    ] = None,
    json: Json = False,
) -> None:
    """Write questions of another layout as a task; pictures are linked or copied."""
    from tightrope.profiles.task.layouts import convert

    task = convert(layout, source, images, output)
    pictures = {image for item in task.items for image in item.images}
    counts = {"questions": len(task.items), "images": len(pictures)}
    if json:
        print_json(versioned("task", {"task": str(output), **counts}))
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
