"""An ONNX graph in a network of TensorRT's, and the lengths that its engine is built for.

`trt` is the module itself: TensorRT, or TensorRT for RTX, which parses alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

AxisRanges = Mapping[str, Sequence[int]]
"""Axis name -> shortest, most common, longest; inputs that share an axis share its range."""


def unparsed(parser: Any, network: Any, parsed: bool, errors: Sequence[str]) -> str:
    """Why a graph did not become a network; empty if it did.

    parsed: what the parser answered. errors: what was logged meanwhile.
    """
    if not parsed:
        told = [str(parser.get_error(i)) for i in range(parser.num_errors)] or list(errors)
        return "does not parse: " + "; ".join(told)
    if not network.num_outputs:  # a file without a graph is parsed without complaint
        return "does not parse: there is no graph with outputs in it"
    return ""


def profile_of(builder: Any, network: Any, ranges: AxisRanges) -> tuple[Any, str]:
    """The optimization profile of a network's inputs, and why there can be none; empty if there is.

    No input's values may decide a shape: lengths alone do.
    """
    profile = builder.create_optimization_profile()
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        if tensor.is_shape_tensor:
            return profile, f"the values of input {tensor.name} decide a shape"
        lengths = list(tensor.shape)
        axes = [tensor.get_dimension_name(i) if n == -1 else n for i, n in enumerate(lengths)]
        if unknown := [axis for axis in axes if not isinstance(axis, int) and axis not in ranges]:
            return profile, f"axes {unknown} of input {tensor.name} have no range"
        if -1 in lengths:
            shapes = zip(*(ranges.get(axis, (axis,) * 3) for axis in axes), strict=True)
            profile.set_shape(tensor.name, *shapes)
    return profile, ""
