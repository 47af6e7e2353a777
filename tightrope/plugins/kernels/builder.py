"""Compiles kernels with Triton's own compiler and assembler; no GPU is needed."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tightrope.errors import BackendError
from tightrope.foreign import translated
from tightrope.plugins.kernels.fits import SCRATCH
from tightrope.plugins.kernels.launch import (
    LAUNCH_FORMAT,
    PTX_VERSIONS,
    WARP,
    Argument,
    Launch,
    kernel_folder,
)
from tightrope.plugins.kernels.source import KernelSource, find
from tightrope.state import write_whole

_TYPES = {"i32": "int32", "fp32": "float32"}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel for one SM."""

    launch: Launch
    cubin: bytes
    ptx: str


def compiled(source: KernelSource, fixed: Mapping[str, int | float | None], sm: int) -> Compiled:
    """Compile for an SM with all that is fixed in a kernel, as `find` tells it.

    Raises BackendError for a kernel that cannot be launched as described.
    """
    triton.knobs.compilation.disable_line_info = True  # no path of this machine in what it writes
    names = list(source.signature)
    made = triton.compile(
        ASTSource(
            fn=source.function,
            signature={**source.signature, **dict.fromkeys(fixed, "constexpr")},
            constexprs=dict(fixed),
            attrs={(names.index(name),): [["tt.divisibility", 16]] for name in source.aligned},
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


def write(name: str, kernel: Compiled, folder: Path) -> None:
    """Write a kernel's three files below `folder`."""
    home = folder / kernel_folder(kernel.launch.sm)
    write_whole(home / f"{name}.cubin", kernel.cubin)
    write_whole(home / f"{name}.ptx", kernel.ptx)
    write_whole(home / f"{name}.json", json.dumps(asdict(kernel.launch), indent=1) + "\n")


def build(names: Iterable[str], sms: Iterable[int], folder: Path) -> Iterator[tuple[str, Compiled]]:
    """Compile kernels by name for each SM and write them below `folder`, one after the other.

    Raises InputError for a name that no file has, or a size that its kernel does not take, before
    anything is compiled, and BackendError for what does not compile.
    """
    for (name, (source, fixed)), sm in itertools.product([(x, find(x)) for x in names], sms):
        way_out = "tightrope kernels build runs without TRITON_INTERPRET, on the pinned Triton"
        with translated(BackendError, f"kernel {name} does not compile for sm_{sm}", way_out):
            kernel = compiled(source, fixed, sm)
        write(name, kernel, folder)
        yield name, kernel
