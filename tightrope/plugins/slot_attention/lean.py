"""`SlotAttention` for one token a call, in ONNX Runtime's operators: the rule in the fewest nodes.

At one token a call it is the number of nodes that costs, and every pass over the slots. So what all
layers have in common is computed once for all of them: one bias for the columns that each layer
attends to, one sum of the attention that slots received.

The columns of a layer are *nothing*, the new token, then its slots; those of all layers stand one
behind another, since layers may hold different numbers of slots. Nothing takes all the attention of
a padding row, and none of any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tightrope.interface.onnx import CONTRIB_DOMAIN, END, FLOAT, INT32
from tightrope.plugins.slot_attention.body import (
    MASKED,
    Common,
    Fixed,
    capped,
    scored,
    settle,
    shared,
)
from tightrope.plugins.slot_attention.scores import DEFAULT_SCORE

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

_SLOTS = 2
"""The column at which slots begin."""
_NEVER = np.iinfo(np.int32).max
"""The window of a layer that sees all."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that the layers of a call attend to."""

    bias: Sequence[ir.Value]
    """By layer float32 [N,Hkv,1,2+U], added to the logits"""
    parts: Sequence[ir.Value]
    """By layer int64 [3]: 1, 1, U"""
    nothing: ir.Value
    """float32 [N,Hkv,G,1], zeros"""
    held: ir.Value
    """bool [L*(2+C)], the columns that there are: 2+U of each layer"""
    alike: ir.Value
    """bool []: all of them"""


def body(
    op: OpBuilder, operands: list[ir.Value], fixed: Fixed, score: str = DEFAULT_SCORE
) -> tuple[ir.Value, ...]:
    """The whole op: inputs and outputs as in the schema."""
    query, key, value, slot_key, slot_value, slot_score, slot_position = operands[:7]
    # A step's token reaches nothing behind itself.
    query_position, kv_budget, policy, query_reach = operands[7:]
    common = shared(op, (query_position, query_reach), policy, fixed.kv_heads)
    columns = columns_of(op, op.Unsqueeze(slot_position, [0]), [slot_key], [fixed], common)
    out, weight = attend(op, [query, key, value, slot_key, slot_value], fixed, columns, 0)
    mass = op.Squeeze(received(op, [weight], columns), [0])
    old, new = scored(op, (mass, key, slot_score, slot_key), fixed, common, "step", score)
    slots = (slot_score, slot_position, op.Unsqueeze(kv_budget, [1]))
    return out, *settle(op, old, new, slots, common, "step")


def columns_of(
    op: OpBuilder,
    slot_position: ir.Value,
    slot_keys: Sequence[ir.Value],
    layers: Sequence[Fixed],
    common: Common,
) -> Columns:
    """`Columns` of a call: slot_position int32 [L,N,Hkv,C], slot_keys by layer [N,Hkv,U,D]."""
    count, heads = len(layers), layers[0].kv_heads
    assert all(each.activation == FLOAT for each in layers)
    used = op.Concat(*[op.dim(keys, 2) for keys in slot_keys], axis=0)  # [L]
    width = op.Add(op.dim(slot_position, 3), [_SLOTS])
    widths = op.Add(used, [_SLOTS])
    column = op.Unsqueeze(op.iota(op.Squeeze(width)), [0])
    held = op.Reshape(op.Less(column, op.Unsqueeze(widths, [1])), [-1])
    alike = op.Equal(op.ReduceMin(widths, keepdims=0), op.Squeeze(width))

    alive = op.GreaterOrEqual(common.newest, np.int32(0))  # [N,1,1]
    nothing = op.Where(alive, MASKED, -MASKED)
    first = op.Concat(nothing, op.Mul(nothing, np.float32(0)), axis=2)  # [N,1,2]
    lanes = op.Shape(slot_position, end=3)  # [L,N,Hkv]
    first = op.Expand(first, op.Concat(lanes, [_SLOTS], axis=0))
    hidden = _hidden(op, slot_position, layers, common)
    bias = op.Concat(first, op.Where(hidden, MASKED, np.float32(0)), axis=3)
    bias = op.Reshape(op.Transpose(bias, perm=[1, 2, 0, 3]), [0, 0, 1, -1])
    ones = op.Expand([1, 1], [count, _SLOTS])
    parts = op.Reshape(op.Concat(ones, op.Unsqueeze(used, [1]), axis=1), [-1])
    n, group = op.dim(common.query_position, 0), layers[0].q_heads // heads
    return Columns(
        bias=_split(op, _packed(op, bias, held, alike), widths, count, axis=3),
        parts=_split(op, parts, [_SLOTS + 1] * count, count, axis=0),
        nothing=op.ConstantOfShape(op.shape(n, heads, group, 1)),
        held=held,
        alike=alike,
    )


def attend(
    op: OpBuilder, rows: Sequence[ir.Value], fixed: Fixed, columns: Columns, layer: int
) -> tuple[ir.Value, ir.Value]:
    """One layer's output [N,Hq,1,D] and its attention float32 [N,Hkv,G,2+U].

    rows: query, key, value, slot_key, slot_value, which are read where they lie.
    """
    query, key, value, slot_key, slot_value = rows
    group = fixed.q_heads // fixed.kv_heads
    queries = op.Reshape(query, [0, fixed.kv_heads, group, fixed.head_dim])
    new, old = (
        op.FusedMatMul(queries, keys, domain=CONTRIB_DOMAIN, transB=1, alpha=fixed.scale)
        for keys in (key, slot_key)
    )
    logits = capped(op, op.Concat(columns.nothing, new, old, axis=3), fixed)
    weight = op.Softmax(op.Add(logits, columns.bias[layer]), axis=-1)
    parts = op.Split(weight, columns.parts[layer], axis=3, outputs=_SLOTS + 1)
    mixed = op.Add(op.MatMul(parts[2], slot_value), op.Mul(parts[1], value))
    return op.Reshape(mixed, [0, fixed.q_heads, 1, fixed.head_dim]), weight


def received(op: OpBuilder, weights: Sequence[ir.Value], columns: Columns) -> ir.Value:
    """float32 [L,N,Hkv,1+C]: what the new token, then the slots received in each layer."""
    layers = len(weights)
    mass = op.ReduceSum(op.Concat(*weights, axis=3), [2], keepdims=0)
    mass = op.Reshape(_spread(op, mass, columns), [0, 0, layers, -1])  # [N,Hkv,L,2+C]
    mass = op.Transpose(mass, perm=[2, 0, 1, 3])
    without_nothing: ir.Value = op.Slice(mass, [1], [END], [3])
    return without_nothing


def _hidden(
    op: OpBuilder, slot_position: ir.Value, layers: Sequence[Fixed], common: Common
) -> ir.Value:
    """bool [L,N,Hkv,C]: slots that are empty or older than what the layer sees."""
    if not any(each.window for each in layers):
        empty: ir.Value = op.Less(slot_position, np.int32(0))
        return empty
    windows = np.array([each.window or _NEVER for each in layers], np.int32)
    oldest = op.Sub(common.newest, windows[:, None, None, None])  # [L,N,1,1]
    unseen: ir.Value = op.LessOrEqual(slot_position, op.Max(oldest, np.int32(-1)))
    return unseen


def _packed(op: OpBuilder, value: ir.Value, held: ir.Value, alike: ir.Value) -> ir.Value:
    """value [N,Hkv,1,L*(2+C)] without the columns that there are not."""
    then, otherwise = op.inner("then"), op.inner("else")
    whole, part = then.Identity(value), otherwise.Compress(value, held, axis=3)
    return op.branch(alike, then, [whole], otherwise, [part])[0]


def _spread(op: OpBuilder, value: ir.Value, columns: Columns) -> ir.Value:
    """value [N,Hkv,columns] with zeros for the columns that there are not, [N,Hkv,L*(2+C)]."""
    then, otherwise = op.inner("then"), op.inner("else")
    whole = then.Identity(value)
    counted = otherwise.CumSum(otherwise.Cast(columns.held, to=INT32), np.int64(0))
    part = otherwise.Gather(value, otherwise.Sub(counted, np.int32(1)), axis=2)
    part = otherwise.Mul(part, otherwise.Cast(columns.held, to=FLOAT))
    return op.branch(columns.alike, then, [whole], otherwise, [part])[0]


def _split(
    op: OpBuilder, value: ir.Value, lengths: ir.Value | list[int], count: int, axis: int
) -> list[ir.Value]:
    parts = op.Split(value, lengths, axis=axis, outputs=count)
    return list(parts) if count > 1 else [parts]
