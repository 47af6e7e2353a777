"""Compiles kernels with Triton's own compiler and assembler; no GPU is needed.

    python -m tightrope.plugins.kernels.builder [--sm 87] [--sm 110] [--output FOLDER]

writes what `launch` reads, for every kernel of the table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tightrope.errors import BackendError
from tightrope.plugins.kernels.fits import SCRATCH
from tightrope.plugins.kernels.launch import (
    COMPILED,
    LAUNCH_FORMAT,
    WARP,
    Argument,
    Launch,
    kernel_folder,
)
from tightrope.plugins.kernels.source import KernelSource
from tightrope.state import write_whole

KERNELS = ("commit",)
"""Folders of `plugins` whose kernel.py defines SOURCE."""
PTX_VERSIONS = {87: 85, 110: 90}
"""SM of a board -> the newest PTX that its first JetPack's driver assembles: CUDA 12.6 and 13.0."""
_TYPES = {"i32": "int32", "fp32": "float32"}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel for one SM."""

    launch: Launch
    cubin: bytes
    ptx: str


def compiled(source: KernelSource, sm: int) -> Compiled:
    """Compile for an SM; raises BackendError for a kernel that cannot be launched as described."""
    triton.knobs.compilation.disable_line_info = True  # no path of this machine in what it writes
    made = triton.compile(
        ASTSource(
            fn=source.function,
            signature={**source.signature, **dict.fromkeys(source.constants, "constexpr")},
            constexprs=dict(source.constants),
        ),
        target=GPUTarget("cuda", sm, WARP),
        options={"num_warps": source.warps, "ptx_version": PTX_VERSIONS[sm]},
    )
    if made.metadata.global_scratch_size:
        raise BackendError(f"kernel {made.metadata.name} needs scratch memory; write it without")
    arguments = tuple(
        Argument(name=name, type="pointer" if kind.startswith("*") else _TYPES[kind])
        for name, kind in source.signature.items()
    )
    launch = Launch(
        format=LAUNCH_FORMAT,
        kernel=made.metadata.name,
        sm=sm,
        warps=made.metadata.num_warps,
        shared_bytes=made.metadata.shared,
        grid=source.grid,
        arguments=arguments,
        unused_pointers=SCRATCH,
        cubin_sha256=hashlib.sha256(made.asm["cubin"]).hexdigest(),
        compiler=f"triton {triton.__version__}",
    )
    return Compiled(launch, made.asm["cubin"], made.asm["ptx"])


def sources() -> Iterator[tuple[str, KernelSource]]:
    """Every kernel by name."""
    for name in KERNELS:
        yield name, import_module(f"tightrope.plugins.{name}.kernel").SOURCE


def write(name: str, kernel: Compiled, folder: Path) -> None:
    """Write a kernel's three files below `folder`."""
    home = folder / kernel_folder(kernel.launch.sm)
    write_whole(home / f"{name}.cubin", kernel.cubin)
    write_whole(home / f"{name}.ptx", kernel.ptx)
    write_whole(home / f"{name}.json", json.dumps(asdict(kernel.launch), indent=1) + "\n")


def main() -> None:
    """Compile every kernel for the SMs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sm", type=int, action="append", choices=sorted(PTX_VERSIONS))
    parser.add_argument("--output", type=Path, default=COMPILED)
    options = parser.parse_args()
    for name, source in sources():
        for sm in options.sm or sorted(PTX_VERSIONS):
            write(name, compiled(source, sm), options.output)


if __name__ == "__main__":
    main()
