"""Own ops replaced by their bodies: which body, and so which kind of graph, is chosen here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.int4_matmul import body as int4_body
from tightrope.plugins.schema import DOMAIN
from tightrope.plugins.select_tokens import body as select_body
from tightrope.plugins.slot_attention import body as attention_body

Values = Sequence[ir.Value]
# How SlotAttention is lowered: `general` for any S, `step` for S = 1, `both` behind an If.
FACES = ("general", "step", "both")


def lower(model: ir.Model, face: str) -> None:
    """Replace every own op of `model` by standard operators."""
    assert face in FACES
    attention = _Attention(model, face)
    handlers: dict[str, Callable[[OpBuilder, ir.Node], Values]] = {
        "SlotAttention": attention,
        "SelectTokens": _select,
        "Int4MatMul": _multiply,
    }
    own = [node for node in model.graph if node.domain == DOMAIN]
    for number, node in enumerate(own):
        op = OpBuilder(f"{node.op_type}.{number}")
        results = handlers[node.op_type](op, node)
        for old, new in zip(node.outputs, results, strict=True):
            new.type, new.shape = old.type, old.shape
        model.graph.insert_before(node, op.nodes)
        for old, new in zip(node.outputs, results, strict=True):
            if old.is_graph_output():
                new.name = old.name
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    model.graph.opset_imports.pop(DOMAIN, None)


def _select(op: OpBuilder, node: ir.Node) -> Values:
    score, candidates, keep_ramp = _inputs(node)
    return select_body.body(op, score, candidates, keep_ramp)


def _multiply(op: OpBuilder, node: ir.Node) -> Values:
    x, weight, scale = _inputs(node)
    return (int4_body.body(op, x, weight, scale, node.attributes["block_size"].as_int()),)


def _inputs(node: ir.Node) -> list[ir.Value]:
    assert all(value is not None for value in node.inputs)
    return [value for value in node.inputs if value is not None]


class _Attention:
    """Lowers the SlotAttention nodes of one graph; what layers share is computed once."""

    def __init__(self, model: ir.Model, face: str) -> None:
        self._model, self._face = model, face
        self._shared: dict[tuple[ir.Value, ir.Value], attention_body.Shared] = {}
        self._is_step: ir.Value | None = None

    def __call__(self, op: OpBuilder, node: ir.Node) -> Values:
        inputs = _inputs(node)
        query, key, query_position, policy = inputs[0], inputs[1], inputs[7], inputs[9]
        dims = _dims(node, query, key)
        if (query_position, policy) not in self._shared:
            self._shared[query_position, policy] = attention_body.shared(
                op, query_position, policy, dims.kv_heads
            )
        shared = self._shared[query_position, policy]
        operands = [*inputs[:7], inputs[8]]
        if self._face == "general":
            return attention_body.general(op, operands, dims, shared)
        if self._face == "step":
            return attention_body.step(op, operands, dims, shared)
        if self._is_step is None:
            self._is_step = op.Equal(op.scalar_dim(query_position, 1), np.int64(1))
        then, otherwise = op.inner("then"), op.inner("else")
        return op.branch(
            self._is_step,
            then,
            attention_body.step(then, operands, dims, shared),
            otherwise,
            attention_body.general(otherwise, operands, dims, shared),
        )


def _dims(node: ir.Node, query: ir.Value, key: ir.Value) -> attention_body.Dims:
    assert query.shape is not None and key.shape is not None and query.dtype is not None
    attributes = node.attributes
    return attention_body.Dims(
        q_heads=int(query.shape[1]),
        kv_heads=int(key.shape[1]),
        head_dim=int(query.shape[3]),
        dtype=query.dtype.value,
        scale=attributes["scale"].as_float(),
        softcap=attributes["softcap"].as_float(),
        window=attributes["window"].as_int(),
        pool_kernel=attributes["pool_kernel"].as_int() if "pool_kernel" in attributes else 5,
    )
