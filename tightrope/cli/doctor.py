"""`tightrope doctor`: the machine, the board, the packages, and which backends would run."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import typer

from tightrope.cli.options import Json
from tightrope.cli.output import gibibytes, mebibytes, print_json, print_pairs
from tightrope.errors import BackendError
from tightrope.jetson import probe
from tightrope.jetson.probe import Board, Machine
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

    machine: Machine
    board: Board | None
    packages: dict[str, dict[str, str | None]]
    """Version by distribution, grouped by what it serves; None where it is not installed."""
    backends: dict[str, BackendStatus]
    refusals: tuple[str, ...]
    """What Tightrope refuses to run with; each says its own way out."""

    @property
    def healthy(self) -> bool:
        """Whether some backend is ready and nothing is refused."""
        ready = any(status.ready for status in self.backends.values())
        return ready and not self.refusals

    def to_dict(self) -> dict[str, object]:
        return versioned("doctor", {"healthy": self.healthy, **asdict(self)})


def diagnose() -> Diagnosis:
    """Look at this machine; loads no backend and needs no root rights."""
    return Diagnosis(
        machine=probe.read_machine(),
        board=probe.read_board(),
        packages={
            purpose: {name: installed_version(name) for name in names}
            for purpose, names in PACKAGES.items()
        },
        backends=backend_status(),
        refusals=_refusals(),
    )


def doctor(
    json: Json = False,
) -> None:
    """Tell what this machine is, what is missing, and which backends would run.

    Exit code 0 where a backend is ready and nothing stands in its way, else 1.
    """
    diagnosis = diagnose()
    if json:
        print_json(diagnosis.to_dict())
    else:
        _print_for_people(diagnosis)
    raise typer.Exit(0 if diagnosis.healthy else 1)


def _refusals() -> tuple[str, ...]:
    try:
        refuse_two_onnxruntimes()
    except BackendError as error:
        return (str(error),)
    return ()


def _print_for_people(diagnosis: Diagnosis) -> None:
    print_pairs("Machine", _machine_rows(diagnosis.machine))
    board = diagnosis.board
    print_pairs("\nBoard", _board_rows(board) if board else [("model", "not a Jetson")])
    for purpose, versions in diagnosis.packages.items():
        rows = [(name, version or "not installed") for name, version in versions.items()]
        print_pairs(f"\nPackages {purpose}", rows)
    rows = [(name, _backend_line(status)) for name, status in diagnosis.backends.items()]
    print_pairs("\nBackends", rows)
    if diagnosis.refusals:
        print_pairs("\nRefused", [("!", refusal) for refusal in diagnosis.refusals])


def _machine_rows(machine: Machine) -> list[tuple[str, str]]:
    rows = [
        ("system", f"{machine.system}, kernel {machine.kernel}, {machine.architecture}"),
        ("processor", f"{machine.cpu}, {machine.num_cores} cores for this process"),
        (
            "memory",
            f"{gibibytes(machine.memory_bytes)}, "
            f"{gibibytes(machine.memory_available_bytes)} available",
        ),
        ("python", machine.python),
    ]
    if machine.cma_bytes:
        free, total = mebibytes(machine.cma_free_bytes), mebibytes(machine.cma_bytes)
        rows.append(("contiguous memory", f"{free} free of {total}"))
    return rows


def _board_rows(board: Board) -> list[tuple[str, str]]:
    module = board.module
    rows = [("model", board.model), ("module", board.module_id or "unknown")]
    if module:
        sms = f", {module.num_sms} SM" if module.num_sms else ""
        rows[-1] = (
            "module",
            f"{module.name} ({board.module_id}), compute capability "
            f"{module.compute_capability}{sms}",
        )
    if board.l4t is None:
        rows.append(("software", "no /etc/nv_tegra_release: not a JetPack system"))
    elif board.jetpack is None:
        rows.append(("software", f"Jetson Linux {board.l4t}, a release unknown to this Tightrope"))
    else:
        pack = board.jetpack
        rows.append(
            (
                "software",
                f"Jetson Linux {board.l4t}, JetPack {pack.jetpack}, CUDA {pack.cuda}, "
                f"TensorRT {pack.tensorrt}",
            )
        )
        if pack.note:
            rows.append(("note", pack.note))
    if board.power_mode:
        mode = board.power_mode
        rows.append(("power mode", f"{mode.name} (of {', '.join(mode.accepted)})"))
    else:
        rows.append(("power mode", "unknown; `sudo nvpmodel -q` tells it"))
    return rows


def _backend_line(status: BackendStatus) -> str:
    if status.ready:
        return f"ready: {status.detail}"
    return f"missing: {status.detail}" + (f"; {status.remedy}" if status.remedy else "")
