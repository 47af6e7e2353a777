"""Attending block by block of queries, as ONNX Runtime reads a prompt.

Whole, the weights are Hq * S * (U + S) numbers, which every pass over them fetches from memory.
Those of a block stay in a core's cache, and what they take is the same for any prompt. A block does
not multiply with the new tokens behind it, which it would not see, unless tokens reach ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tightrope.interface.onnx import CONTRIB_DOMAIN, END, FLOAT
from tightrope.plugins.slot_attention.body_call import MASKED, Common, Fixed, capped

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

MOST_QUERIES = 64
"""Of a block: at 14 heads and 1,024 columns their weights take 3.7 MB."""
_UNSEEN = np.iinfo(np.int32).max
"""The ordinal that an empty slot or a padding token has for those that look."""


def attend_in_blocks(
    op: OpBuilder, rows: list[ir.Value], counted: ir.Value, fixed: Fixed, common: Common
) -> tuple[ir.Value, ir.Value]:
    """What all queries get [N,Hq,S,D], and float32 [N,Hkv,U+S], what they gave.

    rows: query, key, value, slot_key, slot_value, slot_position [N,Hkv,C]. counted: [N,S].
    """
    query, key, value, slot_key, slot_value, slot_position = rows
    assert fixed.activation == FLOAT
    s, used = op.dim(query, 2), op.dim(slot_key, 2)
    rounds = _ceiling(op, s, op.value([MOST_QUERIES]))
    length = _ceiling(op, s, rounds)
    missing = op.Sub(op.Mul(rounds, length), s)

    keys, values = op.Concat(slot_key, key, axis=2), op.Concat(slot_value, value, axis=2)
    position = op.Concat(op.Slice(slot_position, [0], used, [2]), common.position, axis=2)
    unseen = op.Less(position, np.int32(0))
    columns = op.Unsqueeze(op.Where(unseen, np.int32(_UNSEEN), position), [2])  # [N,Hkv,1,U+S]
    # Blocks are equally long: what they lack are queries that count for nothing.
    queries = op.Pad(query, op.Concat([0] * 6, missing, [0], axis=0))
    behind = op.Concat([0] * 3, missing, axis=0)
    ordinal = op.Pad(common.query_position, behind, np.int32(-1))
    picked = op.Pad(counted, behind)
    ahead = common.query_reach is not common.query_position
    reach = op.Pad(common.query_reach, behind, np.int32(-1)) if ahead else ordinal

    def block(
        inner: OpBuilder, number: ir.Value, state: Sequence[ir.Value]
    ) -> tuple[ir.Value, ir.Value]:
        start = inner.Mul(inner.Unsqueeze(number, [0]), length)
        end = inner.Add(start, length)
        seen = inner.Add(used, s if ahead else inner.Min(end, s))
        key, value = (inner.Slice(whole, [0], seen, [2]) for whole in (keys, values))
        own = inner.Reshape(
            inner.Slice(queries, start, end, [2]), [0, fixed.kv_heads, -1, fixed.head_dim]
        )
        logits = inner.FusedMatMul(own, key, domain=CONTRIB_DOMAIN, transB=1, alpha=fixed.scale)
        row_ordinal, row_reach = (
            inner.Unsqueeze(inner.Slice(each, start, end, [1]), [1, 3])  # [N,1,B,1]
            for each in (ordinal, reach)
        )
        visible = inner.LessOrEqual(inner.Slice(columns, [0], seen, [3]), row_reach)
        if fixed.window:
            oldest = inner.Sub(row_ordinal, np.int32(fixed.window))
            recent = inner.Greater(inner.Slice(columns, [0], seen, [3]), oldest)
            visible = inner.And(visible, recent)
        weight = _weights(inner, logits, visible, fixed)
        mixed = inner.Reshape(
            inner.MatMul(weight, value), inner.shape(0, fixed.q_heads, length, fixed.head_dim)
        )
        # A row of weights picks the queries that count; one product sums them and the group.
        counting = inner.Unsqueeze(inner.Slice(picked, start, end, [1]), [1])
        group = fixed.q_heads // fixed.kv_heads
        counting = inner.Reshape(inner.Expand(counting, [1, group, 1]), [0, 1, 1, -1])
        gave = inner.Squeeze(inner.MatMul(counting, weight), [2])  # [N,Hkv,seen]
        before, unchanged = (
            inner.Slice(state[0], [0], seen, [2]),
            inner.Slice(state[0], seen, [END], [2]),
        )
        return inner.Concat(inner.Add(before, gave), unchanged, axis=2), mixed

    nothing = op.ConstantOfShape(op.Concat(op.Shape(slot_key, end=2), op.Add(used, s), axis=0))
    mass, blocks = op.loop(op.Squeeze(rounds), [(nothing, FLOAT)], block, stacked=1)
    mixed = op.Reshape(
        op.Transpose(blocks, perm=[1, 2, 0, 3, 4]), [0, fixed.q_heads, -1, fixed.head_dim]
    )
    return op.Slice(mixed, [0], s, [2]), mass


def _weights(op: OpBuilder, logits: ir.Value, visible: ir.Value, fixed: Fixed) -> ir.Value:
    """float32 [N,Hkv,G*B,W] of logits of that shape; visible: bool [N,Hkv,B,W]."""
    bias = op.Unsqueeze(op.Where(visible, np.float32(0), MASKED), [2])
    length, width = op.dim(visible, 2), op.dim(visible, 3)
    group = fixed.q_heads // fixed.kv_heads
    logits = capped(op, logits, fixed)
    logits = op.Reshape(logits, op.shape(0, fixed.kv_heads, group, length, width))
    weight = op.Softmax(op.Add(logits, bias), axis=-1)
    flat: ir.Value = op.Reshape(weight, op.shape(0, fixed.kv_heads, -1, width))
    return flat


def _ceiling(op: OpBuilder, value: ir.Value, divisor: ir.Value) -> ir.Value:
    """value / divisor of whole numbers, rounded up."""
    up: ir.Value = op.Div(op.Add(value, op.Sub(divisor, [1])), divisor)
    return up
