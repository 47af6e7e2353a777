"""Steps that several selectors share: in numpy for references, in ONNX for bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.export.selectors.selector import Context
    from tightrope.plugins.builder import OpBuilder

Array = npt.NDArray[np.float32]

FLOAT, INT64 = 1, 7  # element types as ONNX numbers them
SHORTEST = np.float32(1e-12)


def unit(rows: Array) -> Array:
    """Rows scaled to length 1; a row of zeros stays."""
    length = np.sqrt(np.sum(rows * rows, axis=-1, keepdims=True))
    scaled: Array = rows / np.maximum(length, SHORTEST)
    return scaled


def emit_unit(op: OpBuilder, rows: ir.Value) -> Any:
    """`unit` along the last axis of float32 [I,T,D] or [T,D]."""
    length = op.Sqrt(op.ReduceSum(op.Mul(rows, rows), [-1], keepdims=1))
    return op.Div(rows, op.Max(length, SHORTEST))


def emit_float(op: OpBuilder, value: ir.Value, context: Context) -> Any:
    """`value` of type T as float32, in which all scoring is done."""
    return value if context.dtype == FLOAT else op.Cast(value, to=FLOAT)


def emit_ramp(op: OpBuilder, length: ir.Value) -> Any:
    """0, 1, ... as float32 [length]; `length` is int64 [1]."""
    return op.Cast(op.iota(op.Squeeze(length)), to=FLOAT)


def emit_take(op: OpBuilder, tokens: ir.Value, index: ir.Value) -> Any:
    """Tokens [I,T,D] of each image at index int64 [I,K]: [I,K,D]."""
    images = op.iota(op.Squeeze(op.dim(tokens, 0)))
    first = op.Mul(op.Unsqueeze(images, [1]), op.dim(tokens, 1))
    rows = op.Reshape(tokens, op.shape(-1, op.dim(tokens, 2)))
    return op.Gather(rows, op.Add(index, first), axis=0)


def emit_best(op: OpBuilder, score: ir.Value, keep_ramp: ir.Value) -> Any:
    """Indices int64 [I,K] of the highest of score float32 [I,V], ascending."""
    every = op.Expand(op.iota(op.Squeeze(op.dim(score, 1))), op.Shape(score))
    index, _ = op.SelectTokens(score, every, keep_ramp, outputs=2, domain="tightrope")
    return index
