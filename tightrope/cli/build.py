"""`tightrope build`: engines for this board, or a check that they would build."""

from __future__ import annotations

from typing import Annotated

import typer

from tightrope.checks import check_one_of
from tightrope.cli.options import BundlePath, Json
from tightrope.cli.output import print_json, print_table
from tightrope.errors import DeviceUnavailable, InputError
from tightrope.schemas import versioned

PLUGINS = ("auto", "none", "all")


def build(
    bundle: BundlePath,
    plugins: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="none: standard operators only; all: with our own; or auto."
        ),
    ] = "auto",
    check: Annotated[
        bool,
        typer.Option(
            "--check", metavar="", help="Only let TensorRT for RTX parse and build the graphs."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Build TensorRT engines on the board that will run them, or --check here that they build."""
    check_one_of("--plugins", plugins, PLUGINS)
    if not check:
        raise _no_engine_builder()
    if plugins == "all":
        raise InputError("--check reads graphs of standard operators; give --plugins none")

    from tightrope.export.check.rtx import check_bundle

    results = check_bundle(bundle)
    passed = all(result.ok for result in results)
    if json:
        rows = [
            {
                "graph": result.graph,
                "ok": result.ok,
                "message": result.message,
                "seconds": result.seconds,
            }
            for result in results
        ]
        print_json(versioned("check", {"ok": passed, "graphs": rows}))
    else:
        print_table(
            "TensorRT for RTX, standard graphs",
            ("graph", "builds", "seconds", "message"),
            [
                (
                    result.graph,
                    "yes" if result.ok else "NO",
                    f"{result.seconds:.1f}",
                    result.message,
                )
                for result in results
            ],
        )
    raise typer.Exit(0 if passed else 1)


def _no_engine_builder() -> DeviceUnavailable:
    from tightrope.runtime.backends.availability import backend_status

    status = backend_status()["tensorrt"]
    return DeviceUnavailable(
        f"TensorRT engines are built by the tensorrt backend, and {status.detail}; "
        "--check tells here whether TensorRT would take the graphs"
    )
