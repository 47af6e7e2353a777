"""`tightrope kernels`: GPU kernels of own ops, compiled without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tightrope.bundle import read_manifest
from tightrope.checks import check_one_of
from tightrope.cli.options import Json
from tightrope.cli.output import bytes_text, print_json, print_table
from tightrope.errors import InputError
from tightrope.folders import reaching
from tightrope.plugins.kernels.homes import FOLDER
from tightrope.plugins.kernels.launch import BOARDS, PTX_VERSIONS
from tightrope.schemas import versioned
from tightrope.state import state_folder

app = typer.Typer(no_args_is_help=True, help="GPU kernels of own ops.")


@app.callback()
def _group() -> None:
    pass


@app.command()
def build(
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="BUNDLE", help="The bundle whose kernels to compile."),
    ] = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A kernel by name; may be repeated."),
    ] = None,
    sm: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N", help="Compute capability without its dot: 87, 110; may be repeated."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to write; else the bundle's state folder."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Compile the kernels that a bundle's graphs launch, or those that are named."""
    for number in sm or ():
        check_one_of("--sm", number, PTX_VERSIONS)
    if output is None:
        if bundle is None:
            raise InputError("--output is not given, and no BUNDLE whose state folder it would be")
        output = state_folder(bundle) / FOLDER
    names = [*(kernel or ()), *(() if bundle is None else _kernels(bundle))]
    if not names:
        raise InputError("nothing to compile: give a BUNDLE, or kernels with --kernel")

    from tightrope.plugins.kernels.builder import build as compile_kernels

    made = []
    with reaching("--output", output):
        for name, built in compile_kernels(dict.fromkeys(names), sm or BOARDS, output):
            made.append((name, built.launch, len(built.cubin)))
    if json:
        kernels = [
            {
                **{"kernel": name, "sm": launch.sm, "warps": launch.warps},
                **{"shared": launch.shared_bytes, "bytes": size},
            }
            for name, launch, size in made
        ]
        print_json(versioned("kernels", {"output": str(output), "kernels": kernels}))
        return
    rows = [(name, f"sm_{launch.sm}", bytes_text(size)) for name, launch, size in made]
    print_table(f"Kernels in {output}", ("kernel", "for", "cubin"), rows, numbers=("cubin",))


def _kernels(bundle: Path) -> list[str]:
    """What a bundle's graphs launch; raises InputError for one whose graphs have no own ops."""
    manifest = read_manifest(bundle)
    if not manifest.plugins:
        why = "; ".join(manifest.no_plugins) or "none of its ops has kernels"
        raise InputError(f"{bundle} has no graphs with own ops ({why}); its engines need no kernel")
    return [name for graph in manifest.plugins.values() for name in graph.kernels]
