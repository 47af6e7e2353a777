"""What an own op looks like from outside, written once for every face of it.

Parsers match nodes by name alone, so no op shares a name with an ONNX operator. Inputs and
attributes are only ever appended; any other change raises `interface.onnx.OWN_OPSET`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.interface.tensors import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class OpSchema:
    """One op of the set: inputs and outputs in order, attributes with their defaults."""

    name: str
    inputs: Rows
    outputs: Rows
    attributes: dict[str, float | int]
    optional: tuple[str, ...] = ()
    """Inputs that may be left out."""
