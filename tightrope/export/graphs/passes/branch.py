"""Two graphs of one trace behind a single If, for a session that serves prompts and tokens."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tightrope.interface.tensors import QUERY_POSITION
from tightrope.plugins.builder import OpBuilder


def by_length(step: ir.Model, general: ir.Model) -> ir.Model:
    """A model that runs `step` where S is 1 and `general` otherwise; both are used up.

    They have the same inputs, outputs and initializers, which the new model holds once.
    """
    inputs = [_like(value) for value in general.graph.inputs]
    stored: dict[str, ir.Value] = {}
    for model in (step, general):
        for name, value in model.graph.initializers.items():
            stored.setdefault(name, _like(value))
    outer = {value.name: value for value in (*inputs, *stored.values())}
    op = OpBuilder("length")
    (position,) = (value for value in inputs if value.name == QUERY_POSITION)
    single = op.Equal(op.scalar_dim(position, 1), np.int64(1))
    outputs = [(value.name, value.type) for value in general.graph.outputs]
    results = op.branch(single, *_taken(step, "step", outer), *_taken(general, "general", outer))
    for result, (name, kind) in zip(results, outputs, strict=True):
        result.name, result.type = name, kind
    graph = ir.Graph(
        inputs,
        results,
        nodes=op.nodes,
        initializers=list(stored.values()),
        opset_imports=dict(general.graph.opset_imports),
        name=general.graph.name,
    )
    model = ir.Model(graph, ir_version=general.ir_version)
    model.metadata_props.update(general.metadata_props)
    return model


def _like(value: ir.Value) -> ir.Value:
    copy = ir.Value(name=value.name, type=value.type, shape=value.shape)
    copy.metadata_props.update(value.metadata_props)
    copy.const_value = value.const_value
    return copy


def _taken(
    model: ir.Model, scope: str, outer: dict[str | None, ir.Value]
) -> tuple[OpBuilder, list[ir.Value]]:
    """The nodes of a model, reading `outer` instead of its own inputs; names begin with `scope`."""
    graph = model.graph
    for value in (*graph.inputs, *graph.initializers.values()):
        ir.convenience.replace_all_uses_with(value, outer[value.name])
    op, outputs = OpBuilder(scope), list(graph.outputs)
    graph.outputs.clear()
    for node in graph.all_nodes():
        node.name = f"{scope}/{node.name}"
        for value in node.outputs:
            value.name = f"{scope}/{value.name}"
    nodes = list(graph)
    graph.remove(nodes)
    op.nodes.extend(nodes)
    return op, outputs
