"""`tightrope doctor`: the machine, the board, the packages, what is wrong and what mends it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from tightrope.cli.doctor_rows import board_rows, log_rows, machine_rows, sensor_rows
from tightrope.cli.options import Json
from tightrope.cli.output import print_json, print_pairs
from tightrope.errors import BackendError, InputError
from tightrope.folders import reaching
from tightrope.jetson.probe import ROOT
from tightrope.jetson.problems import Problem, ordered, problems_of
from tightrope.jetson.survey import Survey, survey
from tightrope.jetson.tegrastats import parse_log, summary_of
from tightrope.runtime.backends.availability import (
    BackendStatus,
    backend_status,
    installed_version,
    refuse_two_onnxruntimes,
)
from tightrope.schemas import versioned

PACKAGES = {
    "needed everywhere": ("numpy", "tokenizers", "pillow", "jinja2", "typer", "rich"),
    "to run": ("onnxruntime", "onnxruntime-gpu", "tensorrt", "pycuda", "cuda-bindings"),
    "to export": (
        "torch",
        "transformers",
        "onnx",
        "onnxscript",
        "onnx-ir",
        "safetensors",
        "gguf",
        "accelerate",
    ),
    "to check for TensorRT": ("tensorrt-rtx",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All that `doctor` found."""

    found: Survey
    packages: dict[str, dict[str, str | None]]
    """Version by distribution, grouped by what it serves; None where it is not installed."""
    backends: dict[str, BackendStatus]
    problems: tuple[Problem, ...]
    """The most important first."""

    @property
    def healthy(self) -> bool:
        """Whether some backend is ready and nothing stands in its way."""
        ready = any(status.ready for status in self.backends.values())
        return ready and not any(problem.gravity == "blocks" for problem in self.problems)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready values with a schema number."""
        values = asdict(self)
        return versioned("doctor", {"healthy": self.healthy, **values.pop("found"), **values})


def diagnose(root: Path = ROOT) -> Diagnosis:
    """Look at the machine under `root`; loads no backend and needs no root rights."""
    return diagnosis_of(survey(root))


def diagnosis_of(found: Survey) -> Diagnosis:
    """What is wrong with a machine that was looked at, and with the packages that run here."""
    backends = backend_status()
    return Diagnosis(
        found=found,
        packages={
            purpose: {name: installed_version(name) for name in names}
            for purpose, names in PACKAGES.items()
        },
        backends=backends,
        problems=ordered([*_package_problems(backends), *problems_of(found)]),
    )


def doctor(
    tegrastats: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Tell instead what a log says that NVIDIA's tegrastats wrote."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Tell what this machine is, what is wrong with it, and which backends would run.

    Exit code 0 where a backend is ready and nothing stands in its way, else 1.
    """
    if tegrastats is not None:
        _tell_log(tegrastats, json=json)
        return
    diagnosis = diagnose()
    if json:
        print_json(diagnosis.to_dict())
    else:
        _print_for_people(diagnosis)
    raise typer.Exit(0 if diagnosis.healthy else 1)


def _package_problems(backends: dict[str, BackendStatus]) -> list[Problem]:
    try:
        refuse_two_onnxruntimes()
    except BackendError as error:
        what, _, fix = str(error).partition("; run: ")
        return [Problem(gravity="blocks", what=what, fix=fix)]
    if any(status.ready for status in backends.values()):
        return []
    last = list(backends.values())[-1]
    what = f"no backend is ready: {last.detail}"
    return [Problem(gravity="blocks", what=what, fix=last.remedy or "see Backends")]


def _tell_log(file: Path, *, json: bool) -> None:
    with reaching("--tegrastats", file):
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"--tegrastats is {str(file)!r}: {error.strerror}") from error
    lines = parse_log(text)
    if not lines:
        raise InputError(
            f"--tegrastats is {str(file)!r}, in which no line is of tegrastats; accepted: what "
            "`tegrastats --logfile FILE` wrote"
        )
    summary = summary_of(lines)
    if json:
        print_json(versioned("tegrastats", asdict(summary)))
    else:
        print_pairs(str(file), log_rows(summary))


def _print_for_people(diagnosis: Diagnosis) -> None:
    found = diagnosis.found
    if diagnosis.problems:
        rows = []
        for problem in diagnosis.problems:
            rows += [(problem.gravity, problem.what), ("", f"→ {problem.fix}")]
        print_pairs("Problems, the most important first", rows)
        print()
    print_pairs("Machine", machine_rows(found.machine))
    print_pairs("\nBoard", board_rows(found))
    print_pairs("\nSensors", sensor_rows(found.sensors))
    for purpose, versions in diagnosis.packages.items():
        rows = [(name, version or "not installed") for name, version in versions.items()]
        print_pairs(f"\nPackages {purpose}", rows)
    rows = [(name, _backend_line(status)) for name, status in diagnosis.backends.items()]
    print_pairs("\nBackends", rows)


def _backend_line(status: BackendStatus) -> str:
    if status.ready:
        return f"ready: {status.detail}"
    return f"missing: {status.detail}" + (f"; {status.remedy}" if status.remedy else "")
