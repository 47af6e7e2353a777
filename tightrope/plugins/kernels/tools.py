"""What a compiled kernel takes of an SM, as NVIDIA's tools in Triton's package tell it.

Limits of an SM: CUDA programming guide, table "Technical Specifications per Compute Capability".
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton

from tightrope.errors import BackendError
from tightrope.foreign import translated
from tightrope.plugins.kernels.builder import Compiled
from tightrope.plugins.kernels.launch import WARP

_KIB = 1 << 10
_REGISTERS, _AT_ONCE = 1 << 16, 256
"""Registers of an SM, and how many are given to a warp at a time."""
_PER_BLOCK = _KIB
"""Shared memory that the system takes of each block."""


@dataclass(frozen=True, slots=True)
class Multiprocessor:
    """What an SM has."""

    warps: int
    blocks: int
    shared_bytes: int
    block_bytes: int
    """Shared memory that one block may have."""


SMS = {
    80: Multiprocessor(64, 32, 164 * _KIB, 163 * _KIB),
    86: Multiprocessor(48, 16, 100 * _KIB, 99 * _KIB),
    87: Multiprocessor(48, 16, 164 * _KIB, 163 * _KIB),
    89: Multiprocessor(48, 24, 100 * _KIB, 99 * _KIB),
    90: Multiprocessor(64, 32, 228 * _KIB, 227 * _KIB),
    110: Multiprocessor(48, 24, 228 * _KIB, 227 * _KIB),
    120: Multiprocessor(48, 24, 100 * _KIB, 99 * _KIB),
}


@dataclass(frozen=True, slots=True)
class Resources:
    """What a kernel takes."""

    registers: int
    """Of a thread."""
    stack_bytes: int
    """Of a thread: registers that were spilled lie there."""
    shared_bytes: int
    """Of a block, static and dynamic."""
    blocks: int
    """That an SM runs at once."""
    occupancy: float
    """Their warps, as a share of those that it could run."""


def resources(kernel: Compiled) -> Resources:
    """Read off a cubin; raises BackendError where the tool cannot."""
    launch, has = kernel.launch, SMS[kernel.launch.sm]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(kernel.cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(file)]
        with translated(BackendError, f"{launch.kernel} cannot be read", "install triton again"):
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = {name: int(value) for name, value in _USAGE.findall(told.split("Function")[1])}
            registers, stack, static = (found[name] for name in ("REG", "STACK", "SHARED"))
    shared = static + launch.shared_bytes
    by_registers = _REGISTERS // (-(-registers * WARP // _AT_ONCE) * _AT_ONCE * launch.warps)
    by_shared = has.shared_bytes // (shared + _PER_BLOCK)
    blocks = min(has.blocks, has.warps // launch.warps, by_registers, by_shared)
    return Resources(registers, stack, shared, blocks, blocks * launch.warps / has.warps)


_USAGE = re.compile(r"(REG|STACK|SHARED):(\d+)")
