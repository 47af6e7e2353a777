"""Whether a launch description is that of its cubin; a kernel launched otherwise reads anything."""

from __future__ import annotations

import struct

from tightrope.plugins.kernels.cubin import argument_sizes, compute_capability

SCRATCH = 2
"""Triton adds pointers to scratch and to a profile behind the arguments of every kernel."""
_POINTER = 8


def check_fits(image: bytes, kernel: str, sm: int, formats: str) -> None:
    """Raises ValueError that says in what a cubin is another one than was described.

    kernel, sm and formats (a letter of `struct` an argument): what the description says.
    """
    if (found := compute_capability(image)) != sm:
        raise ValueError(f"its cubin is for sm_{found}, the description for sm_{sm}")
    sizes = argument_sizes(image, kernel)
    told = [struct.calcsize(letter) for letter in formats]
    if sizes == told:
        return
    scratch = [_POINTER] * SCRATCH
    if sizes + scratch == told:
        raise ValueError("scratch pointers were stripped from its cubin, the description has them")
    if sizes == told + scratch:
        raise ValueError("its cubin has scratch pointers, the description was stripped of them")
    raise ValueError(f"its cubin takes arguments of {sizes} bytes, the description says {told}")
