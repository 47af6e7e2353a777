"""What a kernel's file says of it: the function, its arguments, and the grid it is launched on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSource:
    """A kernel before it is compiled: the one name that its file has to define is SOURCE."""

    function: Any
    """Compiled by Triton; its name is the kernel's."""
    signature: Mapping[str, str]
    """Argument -> type as Triton writes it, "*i64" or "i32", in the function's order."""
    constants: Mapping[str, int]
    """Arguments that are fixed when it is compiled."""
    grid: tuple[str, str, str]
    """Programs along each axis, expressions in whole numbers of sizes that a launch names."""
    warps: int
