"""Slots in int8: SlotAttention reads whole numbers and their scales, any other node floats."""

from __future__ import annotations

import onnx_ir as ir

from tightrope.export.tracing.trace import set_axes
from tightrope.interface.onnx import FLOAT16, element_type
from tightrope.interface.tensors import INT8_SLOTS, Dims, TensorSpec, numbered, slot_rows
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.slot_attention import SCHEMA
from tightrope.plugins.slot_attention.body_slots import from_int8


def hold_in_int8(model: ir.Model, dims: Dims) -> None:
    """Make the slots of a decoder in float16, own ops still in it, int8 with inputs for scales."""
    graph, op = model.graph, OpBuilder("slots")
    given = {str(value.name): value for value in graph.inputs}
    rows = slot_rows(dims, INT8_SLOTS)
    values = {row.name: given.get(row.name) or _input(graph, row) for row in rows}
    for name, scale_name in SCHEMA.scaled.items():
        place = [row.name for row in SCHEMA.inputs].index(scale_name)
        for layer in range(dims.num_hidden_layers):
            held, scale = values[numbered(name, layer)], values[numbered(scale_name, layer)]
            uses = list(held.uses())
            if others := [use for use in uses if use[0].op_type != SCHEMA.name]:
                floats = from_int8(op, held, scale, FLOAT16)
                for node, index in others:
                    node.replace_input_with(index, floats)
            for node in (use[0] for use in uses if use not in others):
                node.resize_inputs(len(SCHEMA.inputs))
                node.replace_input_with(place, scale)
    for row in rows:
        values[row.name].type = ir.TensorType(ir.DataType(element_type(row.dtype, FLOAT16)))
    graph.insert_before(graph[0], op.nodes)
    set_axes(model, rows)


def _input(graph: ir.Graph, row: TensorSpec) -> ir.Value:
    value = ir.Value(name=row.name, shape=ir.Shape(row.axes))
    graph.inputs.append(value)
    return value
