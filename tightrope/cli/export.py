"""`tightrope export`: a checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tightrope.cli.options import Json
from tightrope.cli.output import print_json, print_pairs, progress_on_terminal
from tightrope.errors import InputError


def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A folder, a hub id owner/name, or a GGUF.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The folder to write.")
    ],
    precision: Annotated[str, typer.Option(metavar="NAME", help="fp32, fp16 or int4.")] = "fp16",
    slots: Annotated[
        int, typer.Option(metavar="N", help="Cache slots per layer and KV head at most.")
    ] = 2048,
    prefill_chunk: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens of one prefill call at most.")
    ] = None,
    selector: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="May be repeated; left out: all that the tower feeds."),
    ] = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Selection inside the language model; may be repeated."),
    ] = None,
    resolution: Annotated[
        list[int] | None,
        typer.Option(metavar="PIXELS", help="Side of the image; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the parity check.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Replace an existing bundle.")
    ] = False,
    json: Json = False,
) -> None:
    """Turn a Hugging Face or GGUF checkpoint into a bundle, and check it against the original."""
    if output.exists() and not force:
        raise InputError(f"{output} exists; choose another name, or replace it with --force")

    from tightrope.export.config import ExportConfig
    from tightrope.export.export import export as export_checkpoint

    config = ExportConfig(
        precision=precision,
        slots=slots,
        prefill_chunk=prefill_chunk,
        selectors=None if selector is None else tuple(selector),
        schedules=tuple(schedule or ()),
        resolutions=None if resolution is None else tuple(resolution),
        seed=seed,
    )
    with progress_on_terminal() as progress:
        summary = export_checkpoint(checkpoint, output, config, progress=progress, overwrite=force)
    if json:
        print_json(summary.to_dict())
    else:
        print_pairs("Exported", summary.rows())
