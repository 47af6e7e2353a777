"""SlotAttention lowered in a whole graph: attention layer by layer, the slots once for all.

Where all layers see the same tokens, what becomes of the slots is decided after the last layer for
all of them together: fewer nodes, faster builds. With in-LLM selection each layer decides alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from tightrope.export.graphs.passes.replace import inputs_of, put_in_place, replace_value
from tightrope.interface import tensors
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.slot_attention import SCHEMA, body
from tightrope.plugins.slot_attention.scores import SCORES


def lower_attention(model: ir.Model, nodes: Sequence[ir.Node], form: body.Form, score: str) -> None:
    """Replace the SlotAttention `nodes`, layer 0 first, by bodies of one form."""
    if any(value.name == tensors.VISUAL_INDEX for value in model.graph.inputs):
        _by_layer(model, nodes, form, score)
    else:
        _stacked(model, nodes, form, score)


def _by_layer(model: ir.Model, nodes: Sequence[ir.Node], form: body.Form, score: str) -> None:
    for number, node in enumerate(nodes):
        op = OpBuilder(f"attend.{number}")
        results = body.body(op, inputs_of(node), _fixed(node), form, score)
        put_in_place(model, node, op, results)


def _stacked(model: ir.Model, nodes: Sequence[ir.Node], form: body.Form, score: str) -> None:
    graph, layers = model.graph, len(nodes)
    named = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    slot_score, slot_position, kv_budget, policy = (
        named[name]
        for name in (tensors.SLOT_SCORE, tensors.SLOT_POSITION, tensors.KV_BUDGET, tensors.POLICY)
    )
    key = named[tensors.KEY]
    fixed = _fixed(nodes[0])

    op = OpBuilder("before")
    position = named[tensors.QUERY_POSITION]
    queries = position, named.get(tensors.QUERY_REACH, position)
    call = body.shared(op, queries, policy, fixed.kv_heads)
    counted = op.unstack(call.counted, layers)
    positions = op.unstack(slot_position, layers)
    graph.insert_before(nodes[0], op.nodes)

    masses: list[ir.Value] = []
    scores: list[tuple[ir.Value, ir.Value]] = []
    for number, node in enumerate(nodes):
        op, operands, own = OpBuilder(f"attend.{number}"), inputs_of(node), _fixed(node)
        rows = [*operands[:5], positions[number]]
        out, mass = body.attend(op, rows, counted[number], own, call, form)
        masses.append(mass)
        if SCORES[score].reads_slots:
            evidence = (mass, operands[1], operands[5], operands[3])
            scores.append(body.scored(op, evidence, own, call, form, score))
        graph.insert_before(node, op.nodes)
        replace_value(node.outputs[0], out)

    op = OpBuilder("after")
    if scores:
        old, new = (op.stack(part) for part in zip(*scores, strict=True))
    else:
        evidence = (op.stack(masses), key, slot_score, None)
        old, new = body.scored(op, evidence, fixed, call, form, score)
    slots = (slot_score, slot_position, op.Unsqueeze(kv_budget, [1, 3]))
    settled = body.settle(op, old, new, slots, call, form)
    results = (tensors.TARGET, tensors.NEXT_SCORE, tensors.NEXT_POSITION)
    for name, value in zip(results, settled, strict=True):
        replace_value(named[name], value)
    graph.extend(op.nodes)
    common.RemoveUnusedNodesPass()(model)  # the own nodes, whose outputs nothing reads now


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
