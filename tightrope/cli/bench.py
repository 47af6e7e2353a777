"""`tightrope bench`: tokens per second and time to first token of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tightrope.cli.options import (
    Backend,
    BundlePath,
    Json,
    Policy,
    Selector,
    Threads,
    operating_point,
    option,
)
from tightrope.cli.output import print_json, print_table, progress_on_terminal
from tightrope.configs import default_of
from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.profiles.bench_config import BenchConfig
from tightrope.schemas import versioned

if TYPE_CHECKING:
    from tightrope.profiles.bench import BenchRow
    from tightrope.profiles.samples import Samples


def bench(
    bundle: BundlePath,
    prompt_tokens: Annotated[
        list[int], option(BenchConfig, "prompt_tokens", metavar="N", repeated=True)
    ] = default_of(BenchConfig, "prompt_tokens"),
    generate_tokens: Annotated[
        int, option(BenchConfig, "generate_tokens", metavar="N")
    ] = default_of(BenchConfig, "generate_tokens"),
    repetitions: Annotated[int, option(BenchConfig, "repetitions", metavar="N")] = default_of(
        BenchConfig, "repetitions"
    ),
    image: Annotated[Path | None, option(BenchConfig, "image", metavar="FILE")] = None,
    selector: Selector = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="K", help="Visual tokens kept; adds a test; may be repeated."),
    ] = None,
    policy: Policy = None,
    kv_budget: Annotated[
        list[str] | None,
        typer.Option(metavar="N", help="Occupied slots at most; adds tests; may be repeated."),
    ] = None,
    backend: Backend = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure prompt processing, generation and an image's way to the first token."""
    points = _points(selector, keep or [], policy, kv_budget or [])

    import tightrope
    from tightrope.bundle import Bundle
    from tightrope.profiles.bench import run_bench

    config = BenchConfig(
        prompt_tokens=tuple(prompt_tokens),
        generate_tokens=generate_tokens,
        repetitions=repetitions,
        points=points,
        image=image,
    )
    manifest = Bundle.open(bundle).manifest
    model = tightrope.load(bundle, backend=backend, threads=threads, live=False)
    with progress_on_terminal() as progress:
        rows = run_bench(model, config, vocab_size=manifest.dims.vocab_size, progress=progress)
    if json:
        found = {"bundle": str(bundle), "family": manifest.family, "precision": manifest.precision}
        print_json(versioned("bench", {**found, "rows": [row.to_dict() for row in rows]}))
        return
    print_table(
        f"{bundle}, {manifest.precision}",
        ("test", "point", "tokens/s", "TTFT ms"),
        [_printed(row) for row in rows],
    )


def _points(
    selector: str | None, keeps: list[str], policy: str | None, kv_budgets: list[str]
) -> tuple[OperatingPoint | None, ...]:
    """No pruning and no budget first, then every keep and every budget on its own."""
    if selector is not None and not keeps:
        raise InputError(f"--selector is {selector!r} but --keep is missing; give one or more")
    if keeps and selector is None:
        raise InputError("--keep needs --selector; `tightrope methods` lists them")
    if policy is not None and not kv_budgets:
        raise InputError(f"--policy is {policy!r} but --kv-budget is missing; give one or more")
    return (
        None,
        *(operating_point(selector=selector, keep=keep) for keep in keeps),
        *(operating_point(policy=policy, kv_budget=budget) for budget in kv_budgets),
    )


def _printed(row: BenchRow) -> tuple[str, str, str, str]:
    return row.test, _point_text(row.point), _spread(row.tokens_per_s), _spread(row.ttft_ms)


def _spread(samples: Samples) -> str:
    return f"{samples.mean:.1f} ± {samples.stddev:.1f}"


def _point_text(point: OperatingPoint | None) -> str:
    if point is None:
        return "everything"
    if point.selector is not None:
        return f"{point.selector}, keep {point.keep}"
    return f"{point.policy or 'default policy'}, {point.kv_budget} slots"
