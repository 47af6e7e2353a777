"""Handing a value's place in a graph to another."""

from __future__ import annotations

import onnx_ir as ir


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Users of `old` read `new`, which is called the same where it is an output."""
    new.type, new.shape = old.type, old.shape
    if old.is_graph_output():
        new.name, old.name = old.name, f"{old.name}.replaced"
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
