"""A compiled kernel: its cubin, and a JSON file that says how it is launched.

    sm_87/NAME.json     the fields of `Launch`
    sm_87/NAME.cubin    what the GPU runs
    sm_87/NAME.ptx      the same as text, for a driver that assembles it itself

A grid expression is one of `plugins.expressions`, so that a program in another language can read it
as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tightrope.errors import BackendError
from tightrope.foreign import translated
from tightrope.plugins.expressions import evaluate
from tightrope.plugins.kernels.fits import check_fits
from tightrope.typed import typed

LAUNCH_FORMAT = 1
COMPILED = Path(__file__).parent
"""Kernels that come with the package, by SM."""
WARP = 32
BOARDS = (87, 110)
"""SMs of boards."""
PTX_VERSIONS = {80: 85, 86: 85, 87: 85, 89: 85, 90: 85, 110: 90, 120: 90}
"""SM -> the newest PTX that the oldest driver in question assembles.

Boards: that of the first JetPack, CUDA 12.6 (sm_87) and 13.0 (sm_110). Cards: the same releases.
"""
FORMATS = {"pointer": "P", "int32": "i", "float32": "f"}
"""Type of an argument -> its letter of `struct`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument of a launch."""

    name: str
    type: str
    """A key of FORMATS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a compiled kernel is launched."""

    format: int
    kernel: str
    """Its name in the cubin."""
    sm: int
    """Compute capability without its dot: 87."""
    warps: int
    shared_bytes: int
    """Dynamic shared memory of a block."""
    grid: tuple[str, str, str]
    arguments: tuple[Argument, ...]
    """In order."""
    unused_pointers: int
    """Pointers behind the arguments that the compiler adds and the kernel does not read."""
    cubin_sha256: str
    compiler: str

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.warps * WARP

    @property
    def formats(self) -> str:
        """Letters of `struct`, one an argument, those that are not read behind them."""
        named = "".join(FORMATS[argument.type] for argument in self.arguments)
        return named + FORMATS["pointer"] * self.unused_pointers

    def blocks(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The grid for these sizes; KeyError names one that is missing."""
        return tuple(evaluate(axis, sizes) for axis in self.grid)

    def packed(self, values: Mapping[str, int]) -> tuple[int, ...]:
        """Arguments in order, by name; KeyError names one that is missing."""
        named = tuple(values[argument.name] for argument in self.arguments)
        return (*named, *([0] * self.unused_pointers))


def kernel_folder(sm: int) -> str:
    """Name of the folder that has the kernels of an SM."""
    return f"sm_{sm}"


def load_launch(name: str, sm: int, folder: Path = COMPILED) -> tuple[Launch, bytes]:
    """How kernel `name` is launched on that SM, and its cubin.

    Raises BackendError for an SM that it was not compiled for, and for files that do not belong
    together.
    """
    home = folder / kernel_folder(sm)
    file = home / f"{name}.json"
    if not file.is_file():
        known = ", ".join(sorted(path.parent.name for path in folder.glob(f"*/{name}.json")))
        raise BackendError(
            f"kernel {name} is not compiled for {kernel_folder(sm)}, only for {known or 'none'}; "
            f"on a machine with Triton: tightrope kernels build --kernel {name} --sm {sm}"
        )
    with translated(BackendError, f"{file} is damaged", "install tightrope again"):
        launch = typed(Launch, json.loads(file.read_text(encoding="utf-8")), file.name)
        image = file.with_suffix(".cubin").read_bytes()
        if launch.format != LAUNCH_FORMAT:
            raise ValueError(f"format {launch.format}, this reader knows {LAUNCH_FORMAT}")
        if launch.sm != sm:
            raise ValueError(f"it was compiled for sm_{launch.sm}")
        if hashlib.sha256(image).hexdigest() != launch.cubin_sha256:
            raise ValueError(f"{name}.cubin is another one than it describes")
        if unknown := {argument.type for argument in launch.arguments} - FORMATS.keys():
            raise ValueError(f"arguments of type {', '.join(sorted(unknown))}")
        check_fits(image, launch.kernel, launch.sm, launch.formats)
    return launch, image
