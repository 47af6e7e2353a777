"""Attending in standard ONNX operators: a layer's output, and the attention that slots received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tightrope.interface.onnx import END, FLOAT
from tightrope.plugins.slot_attention.body_blocks import attend_in_blocks
from tightrope.plugins.slot_attention.body_call import MASKED, Common, Fixed, Form, capped

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder


def attend(
    op: OpBuilder,
    rows: list[ir.Value],
    counted: ir.Value,
    fixed: Fixed,
    common: Common,
    form: Form,
) -> tuple[ir.Value, ir.Value]:
    """One layer's output [N,Hq,S,D], and float32 [N,Hkv,S+C]: the attention that the new tokens,
    then the slots received.

    rows: query, key, value, slot_key, slot_value, slot_position [N,Hkv,C]. counted: [N,S].
    """
    if form == "step":
        return _attend_one(op, rows, fixed, common)
    attending = attend_in_blocks if form == "either" else _attend_whole
    mixed, mass = attending(op, rows, counted, fixed, common)
    slot_key, slot_position = rows[3], rows[5]
    used = op.dim(slot_key, 2)
    old, new = op.Slice(mass, [0], used, [2]), op.Slice(mass, used, [END], [2])
    mass = op.Concat(new, old, _beyond(op, slot_position, slot_key), axis=2)
    return _unpadded(op, mixed, fixed, common), mass


def _attend_whole(
    op: OpBuilder, rows: list[ir.Value], counted: ir.Value, fixed: Fixed, common: Common
) -> tuple[ir.Value, ir.Value]:
    """What all queries get in one product [N,Hq,S,D], and float32 [N,Hkv,U+S], what they gave."""
    query, key, value, slot_key, slot_value, slot_position = rows
    kv_heads, head_dim, group = fixed.kv_heads, fixed.head_dim, fixed.q_heads // fixed.kv_heads
    n, s, used = op.dim(query, 0), op.dim(query, 2), op.dim(slot_key, 2)

    # The query heads of a KV head are rows of one matrix.
    queries = op.Reshape(op.Mul(query, _typed(fixed, fixed.scale)), [0, kv_heads, -1, head_dim])
    keys = op.Concat(slot_key, key, axis=2)
    logits = op.MatMul(queries, op.Transpose(keys, perm=[0, 1, 3, 2]))  # [N,Hkv,G*S,U+S]
    logits = capped(op, _to_float(op, logits, fixed), fixed)
    columns = op.Concat(op.Slice(slot_position, [0], used, [2]), common.position, axis=2)
    columns = op.Unsqueeze(columns, [2])  # [N,Hkv,1,U+S]
    row_ordinal = op.Unsqueeze(common.query_position, [1, 3])  # [N,1,S,1]
    reach = row_ordinal
    if common.query_reach is not common.query_position:
        reach = op.Unsqueeze(common.query_reach, [1, 3])
    seen = op.And(op.GreaterOrEqual(columns, np.int32(0)), op.LessOrEqual(columns, reach))
    if fixed.window:
        oldest = op.Sub(row_ordinal, np.int32(fixed.window))
        seen = op.And(seen, op.Greater(columns, oldest))
    bias = op.Where(seen, np.float32(0), MASKED)  # [N,Hkv,S,U+S]
    logits = op.Add(
        op.Reshape(logits, op.shape(n, kv_heads, group, s, -1)), op.Unsqueeze(bias, [2])
    )
    weight = op.Reshape(op.Softmax(logits, axis=-1), op.shape(n, kv_heads, -1, op.Add(used, s)))
    mixed = op.MatMul(_from_float(op, weight, fixed), op.Concat(slot_value, value, axis=2))

    # A row of weights picks the queries that count; one product sums them and the group.
    picked = op.Expand(op.Unsqueeze(counted, [1]), op.shape(1, group, 1))
    mass = op.Squeeze(op.MatMul(op.Reshape(picked, op.shape(n, 1, 1, -1)), weight), [2])
    return op.Reshape(mixed, op.shape(n, fixed.q_heads, s, head_dim)), mass


def _attend_one(
    op: OpBuilder, rows: list[ir.Value], fixed: Fixed, common: Common
) -> tuple[ir.Value, ir.Value]:
    """The same for S = 1, which reaches itself: slots are read where they lie, never copied."""
    query, key, value, slot_key, slot_value, slot_position = rows
    kv_heads, head_dim, used = fixed.kv_heads, fixed.head_dim, op.dim(slot_key, 2)

    queries = op.Reshape(op.Mul(query, _typed(fixed, fixed.scale)), [0, kv_heads, -1, head_dim])
    columns = op.Transpose(queries, perm=[0, 1, 3, 2])  # [N,Hkv,D,G]
    old = op.Transpose(op.MatMul(slot_key, columns), perm=[0, 1, 3, 2])  # [N,Hkv,G,U]
    new = op.MatMul(queries, op.Reshape(key, [0, 0, head_dim, 1]))  # [N,Hkv,G,1]
    old, new = _to_float(op, old, fixed), _to_float(op, new, fixed)
    old, new = capped(op, old, fixed), capped(op, new, fixed)
    position = op.Slice(slot_position, [0], used, [2])
    if fixed.window:
        oldest = op.Sub(common.position, np.int32(fixed.window))
        hidden = op.LessOrEqual(position, op.Max(oldest, np.int32(-1)))
    else:
        hidden = op.Less(position, np.int32(0))
    old = op.Where(op.Unsqueeze(hidden, [2]), MASKED, old)
    weight = op.Softmax(op.Concat(new, old, axis=3), axis=-1)  # [N,Hkv,G,1+U]
    new_weight, old_weight = op.Slice(weight, [0], [1], [3]), op.Slice(weight, [1], [END], [3])
    mixed = op.Add(
        op.MatMul(_from_float(op, old_weight, fixed), slot_value),
        op.Mul(_from_float(op, new_weight, fixed), value),
    )
    out = _unpadded(op, op.Reshape(mixed, [0, fixed.q_heads, 1, head_dim]), fixed, common)
    mass = op.ReduceSum(weight, [2], keepdims=0)  # [N,Hkv,1+U]
    return out, op.Concat(mass, _beyond(op, slot_position, slot_key), axis=2)


def _beyond(op: OpBuilder, slot_position: ir.Value, slot_key: ir.Value) -> Any:
    """Zeros [N,Hkv,C-U] for the slots that were not handed over."""
    lanes = op.Shape(slot_key, end=2)
    rest = op.Sub(op.dim(slot_position, 2), op.dim(slot_key, 2))
    return op.ConstantOfShape(op.Concat(lanes, rest, axis=0))


def _unpadded(op: OpBuilder, out: ir.Value, fixed: Fixed, common: Common) -> Any:
    return op.Mul(out, _from_float(op, op.Unsqueeze(common.valid, [1, 3]), fixed))


def _typed(fixed: Fixed, number: float) -> Any:
    return np.float32(number) if fixed.activation == FLOAT else np.float16(number)


def _to_float(op: OpBuilder, value: ir.Value, fixed: Fixed) -> Any:
    return value if fixed.activation == FLOAT else op.Cast(value, to=FLOAT)


def _from_float(op: OpBuilder, value: ir.Value, fixed: Fixed) -> Any:
    return value if fixed.activation == FLOAT else op.Cast(value, to=fixed.activation)
