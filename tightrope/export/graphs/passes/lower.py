"""Own ops replaced by their bodies, in standard operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from tightrope.export.graphs.passes.attention import Lowering, lower_attention
from tightrope.export.graphs.passes.replace import inputs_of, put_in_place
from tightrope.interface.onnx import OWN_DOMAIN
from tightrope.plugins import int4_matmul, select_tokens, slot_attention, varlen_attention
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.int4_matmul import body as int4_body
from tightrope.plugins.select_tokens import body as select_body
from tightrope.plugins.slot_attention.scores import DEFAULT_SCORE
from tightrope.plugins.varlen_attention import body as varlen_body

Body = Callable[[OpBuilder, ir.Node], Sequence[ir.Value]]


def lower(model: ir.Model, form: Lowering, score: str = DEFAULT_SCORE) -> None:
    """Replace every own op of `model`.

    form: of SlotAttention, see its bodies. score: what a slot is worth, a name in
    `slot_attention.scores`.
    """
    nodes = [node for node in model.graph if node.domain == OWN_DOMAIN]
    for number, node in enumerate(nodes):
        if (body := _BODIES.get(node.op_type)) is not None:
            op = OpBuilder(f"{node.op_type}.{number}")
            put_in_place(model, node, op, body(op, node))
    attention = [node for node in nodes if node.op_type == slot_attention.SCHEMA.name]
    if attention:
        lower_attention(model, attention, form, score)
    model.graph.opset_imports.pop(OWN_DOMAIN, None)


def _select(op: OpBuilder, node: ir.Node) -> Sequence[ir.Value]:
    score, candidates, keep_ramp = inputs_of(node)
    return select_body.body(op, score, candidates, keep_ramp)


def _multiply(op: OpBuilder, node: ir.Node) -> Sequence[ir.Value]:
    x, weight, scale, *optional = node.inputs
    block_size = node.attributes["block_size"].as_int()
    assert x is not None and weight is not None and scale is not None
    return (int4_body.body(op, x, weight, scale, block_size, *optional),)


def _attend_packed(op: OpBuilder, node: ir.Node) -> Sequence[ir.Value]:
    query, key, value, cu_seqlens = inputs_of(node)
    assert query.dtype is not None
    scale, longest = node.attributes["scale"].as_float(), node.attributes["longest"].as_int()
    activation = query.dtype.value
    return (varlen_body.body(op, (query, key, value), cu_seqlens, scale, longest, activation),)


_BODIES: dict[str, Body] = {
    select_tokens.SCHEMA.name: _select,
    int4_matmul.SCHEMA.name: _multiply,
    varlen_attention.SCHEMA.name: _attend_packed,
}
