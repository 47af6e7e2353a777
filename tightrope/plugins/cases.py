"""Inputs on which every face of an op is held against its reference: drawn, and at their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tightrope.arrays import Array

LARGEST = np.float32(np.finfo(np.float16).max)
SMALLEST = np.float32(np.finfo(np.float16).smallest_subnormal)
"""Of what float16 holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call of an op; floats are such as float16 holds."""

    name: str
    inputs: Sequence[Array | None]
    """In the schema's order; None: left out."""
    attributes: dict[str, Any] = field(default_factory=dict)


Cases = Callable[[int], Iterator[Case]]
"""Called with the width of a head, where the op has heads."""


def halves(array: Array) -> Array:
    """The nearest numbers of float16, as float32."""
    near: Array = array.astype(np.float16).astype(np.float32)
    return near
