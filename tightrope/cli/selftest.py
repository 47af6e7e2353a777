"""`tightrope selftest`: whether a bundle answers here as where it was exported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tightrope.bundle import Bundle
from tightrope.cli.options import Backend, BundlePath, Json, Threads
from tightrope.cli.output import print_json
from tightrope.errors import BackendError, BundleError, DeviceUnavailable
from tightrope.schemas import versioned
from tightrope.state import state_folder

if TYPE_CHECKING:
    from tightrope.runtime.selftest.check import Finding
    from tightrope.runtime.selftest.report import Verdict

OPENING = "opening the backend"


def selftest(
    bundle: BundlePath,
    backend: Backend = "auto",
    threads: Threads = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write one file with versions, figures and failures to send."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Hold every graph, and the steps recorded at export, against the bundle's own answers.

    Exit code 0 where all of them agree, else 1.
    """
    opened = Bundle.open(bundle)
    tested = run(opened, backend, threads, say=not json)
    if report is not None:
        write(report, opened, tested)
    if json:
        print_json(versioned("selftest", tested.to_dict()))
    elif report is not None:
        print(f"written to {report}: no prompts, no images")
    raise typer.Exit(0 if tested.passed else 1)


def write(file: Path, bundle: Bundle, tested: Verdict) -> None:
    """The report that may be sent; raises InputError where it cannot be written."""
    from tightrope.cli.doctor import diagnose
    from tightrope.runtime.selftest.report import write_report

    write_report(file, bundle, tested, diagnose().to_dict(), _engines(bundle))


def _engines(bundle: Bundle) -> list[Any]:
    """What is known of the engines that were built here, or why it is not."""
    from tightrope.runtime.backends.tensorrt.cache import EngineCache

    try:
        return [asdict(found) for found in EngineCache(state_folder(bundle.path)).all()]
    except BackendError as error:
        return [str(error)]


def run(bundle: Bundle, backend: str, threads: int | None = None, *, say: bool) -> Verdict:
    """Every finding about the bundle on the backend; say: print each as soon as it is there."""
    from tightrope.runtime.selftest.report import Verdict

    told: dict[str, str] = {}
    findings = []
    for finding in _findings(bundle, backend, threads, told):
        findings.append(finding)
        if say:
            print(line(finding), flush=True)
    return Verdict(
        backend=told.get("name", backend), device=told.get("device"), findings=tuple(findings)
    )


def line(finding: Finding) -> str:
    """A finding on one line."""
    word = "FAIL" if not finding.passed else "ok  " if finding.ran else "--  "
    return f"{word} {finding.name}: {finding.detail} ({finding.seconds:.1f} s)"


def _findings(
    bundle: Bundle, name: str, threads: int | None, told: dict[str, str]
) -> Iterator[Finding]:
    from tightrope.runtime.backends import create_backend
    from tightrope.runtime.selftest.check import Finding, check
    from tightrope.runtime.selftest.kernels import kernels_of
    from tightrope.runtime.selftest.ops import op_findings

    try:
        backend = create_backend(name, bundle, threads)
        told |= {"name": backend.name, "device": backend.device}
    except (BackendError, DeviceUnavailable, BundleError) as error:
        yield Finding(name=OPENING, passed=False, detail=str(error), seconds=0.0)
        return
    yield from check(bundle, backend)
    yield from op_findings(kernels_of(backend, bundle), bundle.manifest.dims.head_dim)
