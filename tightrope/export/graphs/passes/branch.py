"""Two graphs of one trace behind a single If, for a session that serves prompts and tokens."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tightrope.export.graphs.passes.linear import FUSED, LAYOUT
from tightrope.interface.tensors import QUERY_POSITION
from tightrope.plugins.builder import OpBuilder


def by_length(step: ir.Model, general: ir.Model) -> ir.Model:
    """A model that runs `step` where S is 1 and `general` otherwise; both are used up.

    They have the same inputs, outputs and initializers. The latter stand outside the branches, so
    that they are held once, but for weights in codes, which ONNX Runtime fuses with products of
    their own graph alone.
    """
    inputs = [_like(value) for value in general.graph.inputs]
    stored = {
        value.name: _like(value)
        for model in (step, general)
        for value in model.graph.initializers.values()
        if value.metadata_props.get(LAYOUT) not in FUSED
    }
    outer = stored | {value.name: value for value in inputs}
    outputs = [(value.name, value.type) for value in general.graph.outputs]
    op = OpBuilder("length")
    single = op.Equal(op.scalar_dim(outer[QUERY_POSITION], 1), np.int64(1))
    branches = {"then_branch": (step, "step"), "else_branch": (general, "general")}
    attributes = [
        ir.AttrGraph(name, _taken(model, scope, outer)) for name, (model, scope) in branches.items()
    ]
    choice = ir.Node("", "If", [single], attributes=attributes, num_outputs=len(outputs))
    for result, (name, kind) in zip(choice.outputs, outputs, strict=True):
        result.name, result.type = name, kind
    graph = ir.Graph(
        inputs,
        choice.outputs,
        nodes=[*op.nodes, choice],
        initializers=list(stored.values()),
        opset_imports=step.graph.opset_imports | general.graph.opset_imports,
        name=general.graph.name,
    )
    model = ir.Model(graph, ir_version=general.ir_version)
    model.metadata_props.update(general.metadata_props)
    return model


def _like(value: ir.Value) -> ir.Value:
    copy = ir.Value(name=value.name, type=value.type, shape=value.shape)
    copy.const_value = value.const_value
    copy.metadata_props.update(value.metadata_props)
    return copy


def _taken(model: ir.Model, scope: str, outer: dict[str | None, ir.Value]) -> ir.Graph:
    """A model's graph as a branch: it reads `outer` instead of its inputs.

    Names begin with `scope`, because a branch may not use a name of another graph again.
    """
    graph = model.graph
    for value in (*graph.inputs, *list(graph.initializers.values())):
        if value.name in outer:
            ir.convenience.replace_all_uses_with(value, outer[value.name])
            graph.initializers.pop(str(value.name), None)
        else:
            value.name = f"{scope}/{value.name}"
    graph.inputs.clear()
    for node in graph.all_nodes():
        node.name = f"{scope}/{node.name}"
        for value in node.outputs:
            value.name = f"{scope}/{value.name}"
    graph.name = scope
    return graph
