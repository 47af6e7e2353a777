"""SlotAttention lowered in a whole graph: attention layer by layer, the slots once for all.

Where all layers see the same tokens, what becomes of the slots is decided after the last layer for
all of them together: fewer nodes, faster builds. With in-LLM selection each layer decides alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import onnx_ir as ir
from onnx_ir.passes import common

from tightrope.export.graphs.passes.replace import inputs_of, put_in_place, replace_value
from tightrope.interface import tensors
from tightrope.interface.onnx import CONTRIB_DOMAIN
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.slot_attention import SCHEMA, body, lean
from tightrope.plugins.slot_attention.scores import SCORES

Lowering = body.Form | Literal["lean"]
"""A form of the body; lean: the step in ONNX Runtime's operators."""


def lower_attention(model: ir.Model, nodes: Sequence[ir.Node], form: Lowering, score: str) -> None:
    """Replace the SlotAttention `nodes`, layer 0 first, by bodies of one form."""
    if form in ("lean", "either"):
        model.graph.opset_imports[CONTRIB_DOMAIN] = 1
    if any(value.name == tensors.VISUAL_INDEX for value in model.graph.inputs):
        _by_layer(model, nodes, form, score)
    else:
        _stacked(model, nodes, form, score)


def _by_layer(model: ir.Model, nodes: Sequence[ir.Node], form: Lowering, score: str) -> None:
    for number, node in enumerate(nodes):
        op, operands, fixed = OpBuilder(f"attend.{number}"), inputs_of(node), _fixed(node)
        if form == "lean":
            results = lean.body(op, operands, fixed, score)
        else:
            results = body.body(op, operands, fixed, form, score)
        put_in_place(model, node, op, results)


def _stacked(model: ir.Model, nodes: Sequence[ir.Node], form: Lowering, score: str) -> None:
    graph, layers = model.graph, [_fixed(node) for node in nodes]
    named = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    slot_score, slot_position, kv_budget, policy = (
        named[name]
        for name in (tensors.SLOT_SCORE, tensors.SLOT_POSITION, tensors.KV_BUDGET, tensors.POLICY)
    )
    operands = [inputs_of(node) for node in nodes]

    op = OpBuilder("before")
    position = named[tensors.QUERY_POSITION]
    queries = position, named.get(tensors.QUERY_REACH, position)
    call = body.shared(op, queries, policy, layers[0].kv_heads)
    attention: _Lean | _Plain
    if form == "lean":
        attention = _Lean(op, slot_position, operands, layers, call)
    else:
        attention = _Plain(op, slot_position, layers, call, form)
    graph.insert_before(nodes[0], op.nodes)
    for number, node in enumerate(nodes):
        op = OpBuilder(f"attend.{number}")
        out = attention.attend(op, operands[number][:5], number)
        graph.insert_before(node, op.nodes)
        replace_value(node.outputs[0], out)

    op = OpBuilder("after")
    mass = attention.mass(op)
    rest: body.Form = "step" if form == "lean" else form
    if SCORES[score].reads_slots:
        parts = [
            body.scored(op, (one, own[1], own[5], own[3]), fixed, call, rest, score)
            for one, own, fixed in zip(op.unstack(mass, len(layers)), operands, layers, strict=True)
        ]
        old, new = (op.stack(part) for part in zip(*parts, strict=True))
    else:
        evidence = (mass, named[tensors.KEY], slot_score, None)
        old, new = body.scored(op, evidence, layers[0], call, rest, score)
    slots = (slot_score, slot_position, op.Unsqueeze(kv_budget, [1, 3]))
    settled = body.settle(op, old, new, slots, call, rest)
    results = (tensors.TARGET, tensors.NEXT_SCORE, tensors.NEXT_POSITION)
    for name, value in zip(results, settled, strict=True):
        replace_value(named[name], value)
    graph.extend(op.nodes)
    common.RemoveUnusedNodesPass()(model)  # the own nodes, whose outputs nothing reads now


class _Plain:
    """Layers in a form of the body, each with its own mask."""

    def __init__(
        self,
        op: OpBuilder,
        slot_position: ir.Value,
        layers: Sequence[body.Fixed],
        call: body.Common,
        form: body.Form,
    ) -> None:
        self._layers, self._call, self._form = layers, call, form
        self._counted = op.unstack(call.counted, len(layers))
        self._positions = op.unstack(slot_position, len(layers))
        self._masses: list[ir.Value] = []

    def attend(self, op: OpBuilder, rows: Sequence[ir.Value], number: int) -> ir.Value:
        out, mass = body.attend(
            op,
            [*rows, self._positions[number]],
            self._counted[number],
            self._layers[number],
            self._call,
            self._form,
        )
        self._masses.append(mass)
        return out

    def mass(self, op: OpBuilder) -> ir.Value:
        """float32 [L,N,Hkv,S+C]"""
        return op.stack(self._masses)


class _Lean:
    """Layers of the lean step, with one mask for all."""

    def __init__(
        self,
        op: OpBuilder,
        slot_position: ir.Value,
        operands: Sequence[Sequence[ir.Value]],
        layers: Sequence[body.Fixed],
        call: body.Common,
    ) -> None:
        self._layers = layers
        slot_keys = [own[3] for own in operands]
        self._columns = lean.columns_of(op, slot_position, slot_keys, layers, call)
        self._weights: list[ir.Value] = []

    def attend(self, op: OpBuilder, rows: Sequence[ir.Value], number: int) -> ir.Value:
        out, weight = lean.attend(op, rows, self._layers[number], self._columns, number)
        self._weights.append(weight)
        return out

    def mass(self, op: OpBuilder) -> ir.Value:
        """float32 [L,N,Hkv,1+C]"""
        return lean.received(op, self._weights, self._columns)


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
