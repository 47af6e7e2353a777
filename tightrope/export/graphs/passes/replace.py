"""Handing the place of values and nodes in a graph to others."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from tightrope.plugins.builder import OpBuilder


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Users of `old` read `new`, which is called the same where it is an output."""
    new.type, new.shape = old.type, old.shape
    if old.is_graph_output():
        new.name, old.name = old.name, f"{old.name}.replaced"
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def put_in_place(
    model: ir.Model, node: ir.Node, op: OpBuilder, results: Sequence[ir.Value]
) -> None:
    """The nodes of `op`, which compute `results`, instead of `node`."""
    model.graph.insert_before(node, op.nodes)
    for old, new in zip(node.outputs, results, strict=True):
        replace_value(old, new)
    model.graph.remove(node, safe=True)


def inputs_of(node: ir.Node) -> list[ir.Value]:
    """Inputs of a node that leaves none out."""
    assert all(value is not None for value in node.inputs)
    return [value for value in node.inputs if value is not None]
