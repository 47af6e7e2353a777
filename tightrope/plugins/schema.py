"""What an own op looks like from outside, written once for every face of it.

Parsers match nodes by name alone, so no op shares a name with an ONNX operator. Inputs and
attributes are only ever appended; any other change raises `interface.onnx.OWN_OPSET`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    scaled: Mapping[str, str] = field(default_factory=dict)
    """Inputs that are int8 where another one, their scale, is given."""

    @property
    def required(self) -> Rows:
        """The inputs that every node has."""
        return tuple(row for row in self.inputs if row.name not in self.optional)
