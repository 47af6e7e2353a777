"""`tightrope task make`: a task of drawn scenes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tightrope.cli.options import Json, option
from tightrope.cli.output import print_json, print_pairs, progress_on_terminal
from tightrope.configs import default_of
from tightrope.errors import InputError
from tightrope.profiles.scenes.make_config import MakeConfig
from tightrope.schemas import versioned

if TYPE_CHECKING:
    from tightrope.profiles.scenes.card import MakeSummary
    from tightrope.profiles.scenes.scene import Split


def make(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")
    ],
    split: Annotated[str, option(MakeConfig, "split", metavar="NAME")] = default_of(
        MakeConfig, "split"
    ),
    seed: Annotated[int, option(MakeConfig, "seed", metavar="N")] = default_of(MakeConfig, "seed"),
    images: Annotated[int, option(MakeConfig, "images", metavar="N")] = default_of(
        MakeConfig, "images"
    ),
    kind: Annotated[str, option(MakeConfig, "kind", metavar="NAME")] = default_of(
        MakeConfig, "kind"
    ),
    pixels: Annotated[int | None, option(MakeConfig, "pixels", metavar="N")] = None,
    level: Annotated[str | None, option(MakeConfig, "level", metavar="NAME")] = None,
    type: Annotated[
        list[str] | None, option(MakeConfig, "types", metavar="T", repeated=True)
    ] = None,
    share: Annotated[
        list[str] | None, option(MakeConfig, "shares", metavar="KIND=N", repeated=True)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Replace an existing task.")
    ] = False,
    json: Json = False,
) -> None:
    """Draw scenes and write questions about them, with their answers; needs no model."""
    from tightrope.profiles.scenes.making import make_task

    config = MakeConfig(
        kind=kind,
        split=cast("Split", split),
        seed=seed,
        images=images,
        pixels=pixels,
        level=int(level) if level is not None and level.isdecimal() else level,
        types=None if type is None else tuple(type),
        shares=None if share is None else dict(map(_share, share)),
    )
    with progress_on_terminal() as progress:
        summary = make_task(config, output, force=force, progress=progress)
    if json:
        print_json(versioned("task", summary.to_dict()))
    else:
        print_pairs("Made", _rows(summary))


def _share(text: str) -> tuple[str, int]:
    kind, sign, percent = text.partition("=")
    if not sign or not percent.isdecimal():
        raise InputError(f"--share is {text!r}; accepted: a kind and its percents, crowded=40")
    return kind, int(percent)


def _rows(summary: MakeSummary) -> list[tuple[str, str]]:
    counts = [
        ("types", summary.by_type),
        ("kinds", summary.by_kind),
        ("levels", summary.by_level),
    ]
    rows = [
        ("task", summary.task),
        ("questions", f"{summary.questions:,}"),
        ("pictures", f"{summary.images:,}"),
        *((name, ", ".join(f"{k} {v}" for k, v in found.items())) for name, found in counts),
        ("about small things", f"{summary.small} of {summary.placed}"),
        ("sha256 of the pixels", summary.pixel_sha256),
    ]
    return [(name, value) for name, value in rows if value]
