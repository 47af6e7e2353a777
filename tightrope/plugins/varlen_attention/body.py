"""`VarlenAttention` in standard ONNX operators that TensorRT 10.3 parses.

Where segments are known to be short, as the windows of a tower are, each is laid out in a row of
its own, so that time grows with the number of tokens; else all attend to all behind a mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tightrope.interface.onnx import END, FLOAT, FLOAT16, INT64

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

NOWHERE = np.float32(-3e38)
"""Below every logit; a softmax over nothing but it stays a number."""


def body(
    op: OpBuilder,
    operands: tuple[ir.Value, ir.Value, ir.Value],
    cu_seqlens: ir.Value,
    scale: float,
    longest: int,
    activation: int,
) -> ir.Value:
    """out [1,H,T,D] of query, key and value; shapes as in the schema.

    activation: their element type as ONNX numbers it; the softmax is float32.
    """
    query, key, value = operands
    length = op.dim(query, 2)
    scaled = op.Mul(query, np.float16(scale) if activation == FLOAT16 else np.float32(scale))
    segment = _segments(op, cu_seqlens, length)
    if not longest:
        inside = op.Equal(op.Unsqueeze(segment, [0]), op.Unsqueeze(segment, [1]))  # [T,T]
        return _attend(op, (scaled, key, value), inside, activation)
    index, inside = _rows(op, cu_seqlens, length, longest)
    heads = [op.Gather(op.Squeeze(part, [0]), index, axis=1) for part in (scaled, key, value)]
    mixed = _attend(op, tuple(heads), op.Unsqueeze(inside, [1]), activation)  # [H,n,longest,D]
    begin = op.Gather(op.Cast(cu_seqlens, to=INT64), segment, axis=0)
    within = op.Sub(op.iota(op.Squeeze(length)), begin)
    place = op.Add(op.Mul(segment, [longest]), within)
    shape = op.shape(op.dim(query, 1), -1, op.dim(query, 3))
    return op.Unsqueeze(op.Gather(op.Reshape(mixed, shape), place, axis=1), [0])


def _segments(op: OpBuilder, cu_seqlens: ir.Value, length: ir.Value) -> Any:
    """The segment of each token, int64 [T]: how many begin at it or before, less one."""
    token = op.Cast(op.iota(op.Squeeze(length)), to=FLOAT)
    begins = op.Cast(cu_seqlens, to=FLOAT)
    begun = op.GreaterOrEqual(op.Unsqueeze(token, [1]), op.Unsqueeze(begins, [0]))
    count = op.ReduceSum(op.Cast(begun, to=FLOAT), [1], keepdims=0)
    return op.Sub(op.Cast(count, to=INT64), [1])


def _rows(op: OpBuilder, cu_seqlens: ir.Value, length: ir.Value, longest: int) -> tuple[Any, Any]:
    """Tokens int64 [n,longest] of each segment, and which of them are its own."""
    bounds = op.Cast(cu_seqlens, to=INT64)
    begin, end = op.Slice(bounds, [0], [-1], [0]), op.Slice(bounds, [1], [END], [0])
    place = op.Add(op.Unsqueeze(begin, [1]), np.arange(longest)[None])
    inside = op.Less(place, op.Unsqueeze(end, [1]))
    return op.Min(place, op.Sub(length, [1])), inside


def _attend(op: OpBuilder, operands: Any, inside: ir.Value, activation: int) -> Any:
    """Softmax attention of [...,S,D] to the keys that `inside`, which broadcasts, lets through."""
    query, key, value = operands
    logits = op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2]))
    if activation != FLOAT:
        logits = op.Cast(logits, to=FLOAT)
    weight = op.Softmax(op.Where(inside, logits, NOWHERE), axis=-1)
    return op.MatMul(weight if activation == FLOAT else op.Cast(weight, to=activation), value)
