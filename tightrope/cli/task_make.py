"""`tightrope task make`: a task of drawn scenes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tightrope.cli.options import Json
from tightrope.cli.output import print_json, print_pairs, progress_on_terminal

if TYPE_CHECKING:
    from tightrope.profiles.scenes.making import MakeSummary
    from tightrope.profiles.scenes.scene import Level, Split


def make(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")
    ],
    split: Annotated[
        str, typer.Option(metavar="NAME", help="train, dev or test: they share no digit.")
    ] = "test",
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed, other scenes.")] = 0,
    images: Annotated[int, typer.Option(metavar="N", help="Scenes, clips or sets of views.")] = 100,
    kind: Annotated[
        str, typer.Option(metavar="NAME", help="scenes, tiled, clips or views.")
    ] = "scenes",
    pixels: Annotated[
        int | None,
        typer.Option(metavar="N", help="Side of a picture: 336, 224, 168; tiled: 672, 1008."),
    ] = None,
    level: Annotated[
        str | None, typer.Option(metavar="NAME", help="easy, medium or hard; a mix if not given.")
    ] = None,
    type: Annotated[
        list[str] | None,
        typer.Option(metavar="T", help="Only questions of this type; may be repeated."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Replace an existing task.")
    ] = False,
    json: Json = False,
) -> None:
    """Draw scenes and write questions about them, with their answers; needs no model."""
    from tightrope.profiles.scenes.making import MakeConfig, make_task

    config = MakeConfig(
        kind=kind,
        split=cast("Split", split),
        seed=seed,
        images=images,
        pixels=pixels,
        level=cast("Level | None", level),
        types=None if type is None else tuple(type),
    )
    with progress_on_terminal() as progress:
        summary = make_task(config, output, force=force, progress=progress)
    if json:
        print_json({"schema": 1, **summary.to_dict()})
    else:
        print_pairs("Made", _rows(summary))


def _rows(summary: MakeSummary) -> list[tuple[str, str]]:
    counts = [("types", summary.by_type), ("levels", summary.by_level)]
    rows = [
        ("task", summary.task),
        ("questions", f"{summary.questions:,}"),
        ("pictures", f"{summary.images:,}"),
        *((name, ", ".join(f"{k} {v}" for k, v in found.items())) for name, found in counts),
        ("about small things", f"{summary.small} of {summary.placed}"),
        ("sha256 of the pixels", summary.pixel_sha256),
    ]
    return [(name, value) for name, value in rows if value]
