"""Graphs of the selectors that act before the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from tightrope.bundle import VisionInfo
from tightrope.export.selectors import Selector
from tightrope.export.trace import set_axes
from tightrope.export.vision import vision_rows
from tightrope.interface import TensorSpec, select_inputs, select_outputs
from tightrope.plugins.builder import OpBuilder

_TYPES = {"float32": ir.DataType.FLOAT, "int64": ir.DataType.INT64}


@dataclass(frozen=True, slots=True)
class Context:
    """What a selector's body may ask for besides its inputs."""

    dtype: int
    """Element type T as ONNX numbers it."""
    projector: ir.Model | None

    def project(self, op: OpBuilder, states: ir.Value) -> ir.Value:
        """Tower states [I,T,Dv] through the projector, [I,T,E]."""
        assert self.projector is not None
        return _splice(op, self.projector, states)


def build_select(
    selector: Selector, info: VisionInfo, embed: int, projector: ir.Model | None
) -> ir.Model:
    """The graph of one selector in float16, as if it had been traced."""
    half = ir.DataType.FLOAT16
    signals = tuple(row for row in vision_rows(info, embed)[1] if row.name in selector.signals)
    rows = select_inputs(embed, signals, selector.text_guided)
    inputs = [_value(row) for row in rows]
    op = OpBuilder(selector.name)
    named = {value.name: value for value in inputs if value.name}
    assert selector.body is not None, "baselines need no graph"
    results = selector.body(op, named, Context(half.value, projector))
    outputs = []
    for row, value in zip(select_outputs(embed), results, strict=True):
        value = op.Identity(value) if value in inputs else value
        value.name, value.type = row.name, ir.TensorType(_type(row))
        outputs.append(value)
    graph = ir.Graph(inputs, outputs, nodes=op.nodes, opset_imports={"": 21}, name=selector.name)
    if projector is not None:
        used = {value for node in op.nodes for value in node.inputs if value is not None}
        for initializer in [value for value in used if value.metadata_props.get("projector")]:
            del initializer.metadata_props["projector"]
            graph.initializers.add(initializer)
    model = ir.Model(graph, ir_version=10)
    set_axes(model, (*rows, *select_outputs(embed)))
    return model


def _type(row: TensorSpec) -> ir.DataType:
    return _TYPES.get(row.dtype, ir.DataType.FLOAT16)


def _value(row: TensorSpec) -> ir.Value:
    return ir.Value(name=row.name, type=ir.TensorType(_type(row)), shape=ir.Shape(row.axes))


def _splice(op: OpBuilder, model: ir.Model, argument: ir.Value) -> ir.Value:
    """The nodes of a one-input, one-output graph, written again behind `argument`."""
    graph = model.graph
    values: dict[ir.Value, ir.Value] = {graph.inputs[0]: argument}
    for initializer in graph.initializers.values():
        copy = ir.Value(name=initializer.name, type=initializer.type, shape=initializer.shape)
        copy.metadata_props.update(initializer.metadata_props)
        copy.metadata_props["projector"] = "yes"
        values[initializer] = copy
    for node in graph:
        inputs: list[Any] = [None if value is None else values[value] for value in node.inputs]
        attributes = {name: item.value for name, item in node.attributes.items()}
        result = getattr(op, node.op_type)(*inputs, domain=node.domain, **attributes)
        values[node.outputs[0]] = result
        result.type = node.outputs[0].type
    return values[graph.outputs[0]]
