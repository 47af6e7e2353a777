"""Lengths that all layers have in common are asked for once.

torch names symbolic lengths, so that equal names mean equal lengths; what is computed from them,
such as the shapes of reshapes, is then the same for all layers and is merged.
"""

from __future__ import annotations

import onnx_ir as ir

from tightrope.plugins.builder import OpBuilder


def share_lengths(model: ir.Model) -> None:
    """Every length that has a name is read off the first value with that name."""
    known: dict[str, tuple[ir.Value, int]] = {}
    for value in model.graph.inputs:
        for place, length in enumerate(value.shape or ()):
            if (name := _name(length)) is not None:
                known.setdefault(name, (value, place))
    for number, node in enumerate(list(model.graph)):
        axis = _axis(node)
        source = node.inputs[0] if node.inputs else None
        if axis is None or source is None or source.shape is None:
            continue
        if (name := _name(source.shape[axis])) is None:
            continue
        first, place = known.setdefault(name, (source, axis))
        if first is source:
            continue
        op = OpBuilder(f"length.{number}")
        shared = op.dim(first, place)
        model.graph.insert_before(node, op.nodes)
        ir.convenience.replace_all_uses_with(node.outputs[0], shared)
        model.graph.remove(node, safe=True)


def _axis(node: ir.Node) -> int | None:
    """The one axis whose length a node gives; None if it gives anything else."""
    if node.op_type != "Shape" or "start" not in node.attributes or "end" not in node.attributes:
        return None
    start, end = (node.attributes[name].as_int() for name in ("start", "end"))
    return start if 0 <= start == end - 1 and not node.outputs[0].is_graph_output() else None


def _name(length: int | ir.SymbolicDim) -> str | None:
    return None if isinstance(length, int) else length.value
