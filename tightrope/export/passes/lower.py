"""Own ops replaced by their bodies: which body, and so which kind of graph, is chosen here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from tightrope.export.passes.replace import take_over
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
    own = [node for node in model.graph if node.domain == DOMAIN]
    decodes = any(node.op_type == "SlotAttention" for node in own)
    attention = _Attention(model, face) if decodes else None
    handlers: dict[str, Callable[[OpBuilder, ir.Node], Values]] = {
        "SelectTokens": _select,
        "Int4MatMul": _multiply,
    }
    if attention is not None:
        handlers["SlotAttention"] = attention
    for number, node in enumerate(own):
        op = OpBuilder(f"{node.op_type}.{number}")
        results = handlers[node.op_type](op, node)
        model.graph.insert_before(node, op.nodes)
        for old, new in zip(node.outputs, results, strict=False):
            take_over(old, new)
        if len(results) == len(node.outputs):
            model.graph.remove(node, safe=True)
    if attention is not None and attention.stacked:
        op = OpBuilder("keep")
        outputs = {value.name: value for value in model.graph.outputs}
        for name, new in attention.keep_all(op, outputs["key"]).items():
            take_over(outputs[name], new)
        model.graph.extend(op.nodes)
        common.RemoveUnusedNodesPass()(model)  # the own nodes, whose outputs nothing reads now
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
    """Lowers the SlotAttention nodes of one graph, layer 0 first.

    What layers share is computed once. Where all layers see the same tokens, what becomes of the
    slots is decided once for all of them, after the last layer.
    """

    def __init__(self, model: ir.Model, face: str) -> None:
        self._model, self._face = model, face
        inputs = {value.name: value for value in model.graph.inputs}
        self._score, self._position = inputs["slot_score"], inputs["slot_position"]
        self._budget = inputs["kv_budget"]
        assert self._score.shape is not None
        self._layers = int(self._score.shape[0])
        self.stacked = "visual_index" not in inputs
        self._masses: list[ir.Value] = []
        self._shared: dict[tuple[ir.Value, ir.Value], attention_body.Shared] = {}
        self._is_step: ir.Value | None = None
        self._capacity: ir.Value | None = None
        self._last: tuple[attention_body.Dims, attention_body.Shared]

    def __call__(self, op: OpBuilder, node: ir.Node) -> Values:
        inputs = _inputs(node)
        query, key, query_position, policy = inputs[0], inputs[1], inputs[7], inputs[9]
        dims = _dims(node, query, key)
        if (query_position, policy) not in self._shared:
            self._shared[query_position, policy] = attention_body.shared(
                op, query_position, policy, dims.kv_heads
            )
        if self._capacity is None:
            self._capacity = op.dim(self._score, -1)
            self._is_step = op.Equal(op.scalar_dim(query_position, 1), np.int64(1))
        shared = self._shared[query_position, policy]
        out, mass = self._attend(op, inputs[:5], len(self._masses), dims, shared)
        self._masses.append(mass)
        if not self.stacked:
            operands = [mass, key, inputs[5], inputs[6], inputs[8]]
            return (out, *attention_body.keep(op, operands, dims, shared))
        self._last = dims, shared
        return (out,)

    def _attend(
        self,
        op: OpBuilder,
        rows: list[ir.Value],
        layer: int,
        dims: attention_body.Dims,
        shared: attention_body.Shared,
    ) -> Values:
        assert self._capacity is not None
        faces = {"general": attention_body.attend, "step": attention_body.attend_one}

        def emit(inner: OpBuilder, face: str) -> Values:
            assert self._capacity is not None
            position = inner.Gather(self._position, np.int64(layer), axis=0)
            done = faces[face](inner, [*rows, position], self._capacity, dims, shared)
            return done.out, done.mass

        return self._by_face(op, emit)

    def keep_all(self, op: OpBuilder, key: ir.Value) -> dict[str, ir.Value]:
        """Outputs by name, for all layers at once; key: [L,N,Hkv,S,D]."""
        dims, shared = self._last
        shape = op.shape(self._layers, -1, dims.kv_heads, op.dim(self._masses[0], -1))
        mass = op.Reshape(op.Concat(*self._masses, axis=0), shape)
        budget = op.Reshape(self._budget, [self._layers, 1, 1, 1])
        operands = [mass, key, self._score, self._position, budget]
        faces = {"general": attention_body.keep, "step": attention_body.keep_one}
        results = self._by_face(op, lambda inner, face: faces[face](inner, operands, dims, shared))
        return dict(zip(("target", "next_score", "next_position"), results, strict=True))

    def _by_face(self, op: OpBuilder, emit: Callable[[OpBuilder, str], Values]) -> Values:
        if self._face != "both":
            return emit(op, self._face)
        assert self._is_step is not None
        then, otherwise = op.inner("then"), op.inner("else")
        return op.branch(
            self._is_step, then, emit(then, "step"), otherwise, emit(otherwise, "general")
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
