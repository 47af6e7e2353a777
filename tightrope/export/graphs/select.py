"""Graphs of the selectors that act before the language model."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from tightrope.export.selectors import Selector
from tightrope.export.tracing.trace import set_axes
from tightrope.interface.onnx import FLOAT16, IR_VERSION, OPSET, element_type
from tightrope.interface.tensors import (
    Rows,
    TensorSpec,
    select_inputs,
    select_outputs,
)
from tightrope.plugins.builder import OpBuilder


class Context:
    """What a selector's body may ask for besides its inputs."""

    activation = FLOAT16

    def __init__(self, projector: ir.Model) -> None:
        self._projector = projector
        self.weights: list[ir.Value] = []
        """Of the projector, where it was written."""

    def project(self, op: OpBuilder, states: ir.Value) -> ir.Value:
        """Tower states [I,T,Dv] -> embeddings [I,T,E]: the projector's nodes, written again."""
        graph = self._projector.graph
        values: dict[ir.Value, ir.Value] = {graph.inputs[0]: states}
        for weight in graph.initializers.values():
            copy = ir.Value(name=weight.name, type=weight.type, shape=weight.shape)
            copy.metadata_props.update(weight.metadata_props)
            values[weight] = copy
            self.weights.append(copy)
        for node in graph:
            inputs: list[Any] = [None if value is None else values[value] for value in node.inputs]
            attributes = {name: item.value for name, item in node.attributes.items()}
            result = getattr(op, node.op_type)(*inputs, domain=node.domain, **attributes)
            result.type = node.outputs[0].type
            values[node.outputs[0]] = result
        return values[graph.outputs[0]]


def build_select(selector: Selector, vision: Rows, projector: ir.Model) -> ir.Model:
    """The graph of one selector in float16, as if it had been traced.

    vision: outputs of the tower's graph. projector: traced, tower states to embeddings.
    """
    embed = vision[0].axes[-1]
    assert isinstance(embed, int), "the width of an embedding is fixed"
    rows = select_inputs(vision, selector.signals, selector.text_guided)
    promised = select_outputs(embed)
    given = {
        row.name: ir.Value(name=row.name, type=_type(row), shape=ir.Shape(row.axes)) for row in rows
    }
    op, context = OpBuilder(selector.name), Context(projector)
    outputs = selector.body(op, given, context)
    for row, value in zip(promised, outputs, strict=True):
        value.name, value.type = row.name, _type(row)
    graph = ir.Graph(
        given.values(),
        outputs,
        nodes=op.nodes,
        initializers=context.weights,
        opset_imports={"": OPSET},
        name=selector.name,
    )
    model = ir.Model(graph, ir_version=IR_VERSION)
    set_axes(model, (*rows, *promised))
    return model


def _type(row: TensorSpec) -> ir.TensorType:
    return ir.TensorType(ir.DataType(element_type(row.dtype, FLOAT16)))
