"""`tightrope build`: engines for this board, or a check that they would build."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from tightrope.bundle import Bundle
from tightrope.checks import check_one_of
from tightrope.cli.options import BundlePath, Json
from tightrope.cli.output import bytes_text, print_json, print_pairs, print_table
from tightrope.cli.selftest import OPENING, run, write
from tightrope.errors import BackendError, DeviceUnavailable, InputError
from tightrope.jetson.facts import BoardFacts, facts_here, facts_of
from tightrope.jetson.memory import MemoryPlan, plan_memory, refuse_too_large
from tightrope.schemas import versioned
from tightrope.state import file_slug, state_folder

PLUGINS = ("auto", "none", "all")
REPORT = "selftest.json"
"""In the state folder: what the self-test after the last build found."""
_STANDARD, _PLUGINS = "standard operators alone", "own ops as plugins"


def build(
    bundle: BundlePath,
    board: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only check and plan for a board such as orin-nano-8gb."),
    ] = None,
    plugins: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="all: our own ops as plugins; none: standard operators only; or auto.",
        ),
    ] = "auto",
    force: Annotated[
        bool,
        typer.Option("--force", metavar="", help="Build even if memory seems too small."),
    ] = False,
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
    if check:
        if plugins == "all":
            raise InputError(
                "--plugins is 'all', but --check asks TensorRT for RTX, which has no plugins; give "
                "--plugins none"
            )
        _check(bundle, json)
    facts = _facts(board)
    opened = Bundle.open(bundle)
    told = _build(opened, facts, plugins, force, say=not json)
    if json:
        print_json(versioned("build", told))
    raise typer.Exit(0 if told["passed"] else 1)


def _check(bundle: Any, json: bool) -> None:
    """What TensorRT for RTX makes of the graphs; ends the command."""
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


def _facts(board: str | None) -> BoardFacts:
    """This machine, or another board by its name."""
    from tightrope.runtime.backends.tensorrt import versions

    try:
        here = facts_here(versions.version_of(versions.load_tensorrt()))
    except DeviceUnavailable:
        if board is None:
            raise
        return facts_of(board)
    if board is None or file_slug(board) == file_slug(here.name):
        return here
    return facts_of(board)


def _build(
    bundle: Bundle, facts: BoardFacts, plugins: str, force: bool, *, say: bool
) -> dict[str, Any]:
    """Check, plan, build and test; what is told of it. Raises BackendError where it cannot be."""
    from tightrope.plugins.kernels.homes import homes_of
    from tightrope.plugins.parsers import OLDEST
    from tightrope.runtime.backends.tensorrt.building import build_engines, remove_engines
    from tightrope.runtime.backends.tensorrt.engines import (
        ALL,
        NONE,
        BuildOptions,
        refuse_unparsed,
        with_plugins,
    )

    state = state_folder(bundle.path)
    chosen, why = with_plugins(bundle, facts, plugins, homes_of(bundle.path, state))
    options, built = BuildOptions(plugins=chosen), []
    refuse_unparsed(bundle, facts.tensorrt if facts.is_here else OLDEST, options)
    plan = plan_memory(bundle.manifest, facts)
    if say:
        print(f"Built of {why}")
        print_plan(plan, facts, plugins=chosen == ALL)
    if not facts.is_here:
        raise DeviceUnavailable(
            f"engines are built on the board that runs them: run this on the {facts.name} itself; "
            "--check tells here whether TensorRT takes the graphs"
        )
    if not force:
        refuse_too_large(plan)
    for engine in build_engines(bundle, state, facts, options, alone=plan.alone):
        built.append(
            {
                "graph": str(engine.graph),
                "bytes": engine.bytes,
                "seconds": engine.seconds,
                "kept": engine.kept,
            }
        )
        if say:
            how = "was there" if engine.kept else f"built in {engine.seconds:.0f} s"
            print(f"{engine.graph}: {bytes_text(engine.bytes)}, {how}", flush=True)
    # Those of one kind are there, and it is these that the backend opens.
    others = BuildOptions(plugins=NONE if chosen == ALL else ALL)
    remove_engines(bundle, state, facts, others)
    tested, report = run(bundle, "tensorrt", say=say), state / REPORT
    write(report, bundle, tested)
    if not tested.passed and all(finding.name != OPENING for finding in tested.findings):
        remove_engines(bundle, state, facts, options)
        raise BackendError(
            "the engines answer otherwise than the bundle and were removed; what was found is in "
            f"{report}, which may be sent: docs/first-contact.md says where to look{_also(chosen)}"
        )
    return {
        "passed": tested.passed,
        "plugins": {"built": chosen, "why": why},
        "plan": asdict(plan),
        "engines": built,
        "selftest": tested.to_dict(),
    }


def _also(plugins: str) -> str:
    return "" if plugins == "none" else "; --plugins none builds of standard operators alone"


def print_plan(plan: MemoryPlan, facts: BoardFacts, plugins: bool = False) -> None:
    """What engines will take, and what there is, before anything is allocated.

    plugins: whether they have our own ops as such; one of them then reads prompts and tokens.
    """
    of = _PLUGINS if plugins else _STANDARD
    what = f"{facts.name}, compute capability {facts.compute_capability}, {of}"
    if facts.device is None:
        what += "; no table knows this board: only what was read off it counts"
    for title, lines, total in (
        ("while it answers", plan.running, plan.running_bytes),
        ("while the largest engine is built", plan.building, plan.building_bytes),
    ):
        rows = [(f"{line.what} ({line.source})", bytes_text(line.bytes)) for line in lines]
        print_pairs(
            f"{what}\nMemory {title}", [*rows, ("together", bytes_text(total))], numbers=True
        )
        what = ""
    there = []
    if plan.available_bytes is not None:
        there.append((f"available, {plan.available_source}", bytes_text(plan.available_bytes)))
    if plan.cma_free_bytes is not None:
        there.append(("in one piece, free", bytes_text(plan.cma_free_bytes)))
        there.append(("in one piece, asked for by the head", bytes_text(plan.contiguous_bytes)))
    print_pairs("\nThere is", there, numbers=True)
    if plan.alone and not plugins:
        print("Two engines of the language model do not fit: prefill reads single tokens as well.")
    for measure in plan.measures:
        print(f"To make it fit: {measure}")
