"""What an own op looks like from outside, written once for every face of it.

Parsers match nodes by name alone, so no op shares a name with an ONNX operator. Inputs and
attributes are only ever appended; any other change raises `OPSET_VERSION`.
"""

from __future__ import annotations

from dataclasses import dataclass

DOMAIN = "tightrope"
OPSET_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One input or output: its name, its element type ("T" is the graph's float) and its axes."""

    name: str
    dtype: str
    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpSchema:
    """One op of the set: inputs and outputs in order, attributes with their defaults."""

    name: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    attributes: dict[str, float | int]
