"""What a kernel's file says of it: the function, its arguments, and the grid it is launched on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from tightrope.errors import InputError

_OPS = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSource:
    """A kernel before it is compiled: the one name that its file has to define is SOURCE."""

    name: str
    """Of its files, in which {D} stands for the size D that it was compiled for."""
    function: Any
    """Compiled by Triton; its name is that in the cubin."""
    signature: Mapping[str, str]
    """Argument -> type as Triton writes it, "*i64" or "i32", in the function's order."""
    constants: Mapping[str, int | float | None]
    """Arguments that are fixed when it is compiled; None: a pointer that it does without."""
    grid: tuple[str, str, str]
    """Programs along each axis, expressions in whole numbers of sizes that a launch names."""
    warps: int
    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Arguments that are fixed too, one kernel for each value, and which values it takes."""
    aligned: Sequence[str] = ()
    """Addresses and lengths that are multiples of 16, so that words are loaded, not elements."""

    def fixed(self, name: str) -> dict[str, int | float | None] | None:
        """All that is fixed in its kernel of that name; None if it has none of such a name.

        Raises InputError for a size that the kernel does not take.
        """
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>\\d+)", self.name), name)
        if found is None:
            return None
        sizes = {size: int(value) for size, value in found.groupdict().items()}
        for size, value in sizes.items():
            if value not in (takes := self.sizes[size]):
                accepted = ", ".join(map(str, takes))
                raise InputError(f"kernel {name} is none: {self.name} takes {size} of {accepted}")
        return {**self.constants, **sizes}


def sources() -> list[KernelSource]:
    """Those of every file `kernel*.py` in a folder of `plugins`."""
    files = sorted(_OPS.glob("*/kernel*.py"))
    return [import_module(f"tightrope.plugins.{x.parent.name}.{x.stem}").SOURCE for x in files]


def find(name: str) -> tuple[KernelSource, dict[str, int | float | None]]:
    """The source of a kernel by name, and all that is fixed in it.

    Raises InputError with the names there are, or with the sizes that a kernel takes.
    """
    for source in sources():
        if (fixed := source.fixed(name)) is not None:
            return source, fixed
    known = ", ".join(source.name for source in sources())
    raise InputError(f"there is no kernel {name!r}; known: {known}")
