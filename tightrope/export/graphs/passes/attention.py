"""SlotAttention lowered in a whole graph: attention layer by layer, the slots once for all.

Where all layers see the same tokens, what becomes of the slots is decided after the last layer for
all of them together: fewer nodes, faster builds. With in-LLM selection each layer decides alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from tightrope.export.graphs.passes.replace import inputs_of, put_in_place, replace_value
from tightrope.interface import tensors
from tightrope.interface.onnx import FLOAT
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.slot_attention import SCHEMA, body
from tightrope.plugins.slot_attention.scores import SCORES

Values = Sequence[ir.Value]


def lower_attention(model: ir.Model, nodes: Sequence[ir.Node], form: str, score: str) -> None:
    """Replace the SlotAttention `nodes`, layer 0 first, by bodies of one form."""
    if any(value.name == tensors.VISUAL_INDEX for value in model.graph.inputs):
        _by_layer(model, nodes, form, score)
    else:
        _stacked(model, nodes, form, score)


def _by_layer(model: ir.Model, nodes: Sequence[ir.Node], form: str, score: str) -> None:
    inside = _inside(form)
    for number, node in enumerate(nodes):
        op, operands, fixed = OpBuilder(f"attend.{number}"), inputs_of(node), _fixed(node)
        key, slot_key, slot_score, slot_position = operands[1], *operands[3:7:2], operands[6]
        query_position, kv_budget, policy = operands[7:]
        call = body.shared(op, query_position, policy, fixed.kv_heads)
        rows = [*operands[:5], slot_position]
        out, mass = body.attend(op, rows, call.counted, fixed, call, inside)
        scores = body.scored(op, (mass, key, slot_score, slot_key), fixed, call, inside, score)
        slots = (slot_score, slot_position, op.Unsqueeze(kv_budget, [1]))
        put_in_place(model, node, op, (out, *_settled(op, scores, slots, call, form)))


def _stacked(model: ir.Model, nodes: Sequence[ir.Node], form: str, score: str) -> None:
    graph, layers, inside = model.graph, len(nodes), _inside(form)
    named = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    slot_score, slot_position, kv_budget, policy = (
        named[name]
        for name in (tensors.SLOT_SCORE, tensors.SLOT_POSITION, tensors.KV_BUDGET, tensors.POLICY)
    )
    key = named[tensors.KEY]
    fixed = _fixed(nodes[0])

    op = OpBuilder("before")
    call = body.shared(op, named[tensors.QUERY_POSITION], policy, fixed.kv_heads)
    counted = op.unstack(call.counted, layers)
    positions = op.unstack(slot_position, layers)
    graph.insert_before(nodes[0], op.nodes)

    masses: list[ir.Value] = []
    scores: list[tuple[ir.Value, ir.Value]] = []
    for number, node in enumerate(nodes):
        op, operands, own = OpBuilder(f"attend.{number}"), inputs_of(node), _fixed(node)
        rows = [*operands[:5], positions[number]]
        out, mass = body.attend(op, rows, counted[number], own, call, inside)
        masses.append(mass)
        if SCORES[score].reads_slots:
            evidence = (mass, operands[1], operands[5], operands[3])
            scores.append(body.scored(op, evidence, own, call, inside, score))
        graph.insert_before(node, op.nodes)
        replace_value(node.outputs[0], out)

    op = OpBuilder("after")
    if scores:
        old, new = (op.stack(part) for part in zip(*scores, strict=True))
    else:
        evidence = (op.stack(masses), key, slot_score, None)
        old, new = body.scored(op, evidence, fixed, call, inside, score)
    slots = (slot_score, slot_position, op.Unsqueeze(kv_budget, [1, 3]))
    settled = _settled(op, (old, new), slots, call, form)
    results = (tensors.TARGET, tensors.NEXT_SCORE, tensors.NEXT_POSITION)
    for name, value in zip(results, settled, strict=True):
        replace_value(named[name], value)
    graph.extend(op.nodes)
    common.RemoveUnusedNodesPass()(model)  # the own nodes, whose outputs nothing reads now


def _inside(form: str) -> body.Form:
    """The form in which layers attend; those for any S differ only in what becomes of the slots."""
    return "step" if form == "step" else "general"


def _settled(
    op: OpBuilder,
    scores: tuple[ir.Value, ir.Value],
    slots: tuple[ir.Value, ir.Value, ir.Value],
    call: body.Common,
    form: str,
) -> Values:
    old, new = scores

    def emit(inner: OpBuilder, chosen: body.Form) -> Values:
        return body.settle(inner, old, new, slots, call, chosen)

    if form != "either":
        return emit(op, form)  # type: ignore[arg-type]  # one of body.Form
    return _if_room(op, slots[1], new, emit)


def _if_room(
    op: OpBuilder,
    slot_position: ir.Value,
    new: ir.Value,
    emit: Callable[[OpBuilder, body.Form], Values],
) -> Values:
    """append where C has room for all occupied slots and new tokens, else general."""
    taken = op.Cast(op.GreaterOrEqual(slot_position, np.int32(0)), to=FLOAT)
    most = op.ReduceMax(op.ReduceSum(taken, [-1], keepdims=0), keepdims=0)
    free = op.Sub(op.Cast(op.scalar_dim(slot_position, -1), to=FLOAT), most)
    fits = op.GreaterOrEqual(free, op.Cast(op.scalar_dim(new, -1), to=FLOAT))
    then, otherwise = op.inner("then"), op.inner("else")
    appended, ranked = emit(then, "append"), emit(otherwise, "general")
    return op.branch(fits, then, appended, otherwise, ranked)


def _fixed(node: ir.Node) -> body.Fixed:
    query, key = node.inputs[:2]
    assert query is not None and query.shape is not None and query.dtype is not None
    assert key is not None and key.shape is not None
    given: dict[str, Any] = {
        name: node.attributes[name].value if name in node.attributes else default
        for name, default in SCHEMA.attributes.items()
    }
    return body.Fixed(
        q_heads=int(query.shape[1]),
        kv_heads=int(key.shape[1]),
        head_dim=int(query.shape[3]),
        activation=query.dtype.value,
        **given,
    )
