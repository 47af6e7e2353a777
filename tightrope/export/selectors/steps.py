"""Steps that several selectors share: in numpy for references, in ONNX for bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tightrope.arrays import Floats, Indices
from tightrope.interface.onnx import END, FLOAT, OWN_DOMAIN

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

SHORTEST = np.float32(1e-12)


def unit(rows: Floats) -> Floats:
    """Rows scaled to length 1; a row of zeros stays."""
    length = np.sqrt(np.sum(rows * rows, axis=-1, keepdims=True))
    scaled: Floats = rows / np.maximum(length, SHORTEST)
    return scaled


def emit_unit(op: OpBuilder, rows: ir.Value) -> Any:
    """`unit` along the last axis of float32 [I,T,D] or [T,D]."""
    length = op.Sqrt(op.ReduceSum(op.Mul(rows, rows), [-1], keepdims=1))
    return op.Div(rows, op.Max(length, SHORTEST))


def cosines(rows: Floats) -> Floats:
    """How alike rows [V,D] are, each to each: [V,V]."""
    rows = unit(rows)
    alike: Floats = rows @ rows.T
    return alike


def emit_cosines(op: OpBuilder, rows: ir.Value) -> Any:
    """`cosines` of float32 [I,V,D]: [I,V,V]."""
    rows = emit_unit(op, rows)
    return op.MatMul(rows, op.Transpose(rows, perm=[0, 2, 1]))


def ranking(score: Floats) -> Indices:
    """Indices [V], highest score first; of equal ones the lower index."""
    return np.argsort(-score, kind="stable")


def emit_ranking(op: OpBuilder, score: ir.Value) -> Any:
    """`ranking` of float32 [I,V]: int64 [I,V]."""
    _, index = op.TopK(score, op.dim(score, 1), outputs=2, axis=1, largest=1, sorted=1)
    return index


def best(score: Floats, keep: int) -> Indices:
    """Indices [K] of the highest of score [V], ascending."""
    return np.sort(ranking(score)[:keep])


def emit_best(op: OpBuilder, score: ir.Value, keep_ramp: ir.Value) -> Any:
    """`best` of float32 [I,V]: int64 [I,K]."""
    every = op.Expand(op.iota(op.Squeeze(op.dim(score, 1))), op.Shape(score))
    index, _ = op.SelectTokens(score, every, keep_ramp, outputs=2, domain=OWN_DOMAIN)
    return index


def emit_ascending(op: OpBuilder, values: ir.Value) -> Any:
    """Values float32 [I,V], lowest first."""
    ascending, _ = op.TopK(values, op.dim(values, 1), outputs=2, axis=1, largest=0, sorted=1)
    return ascending


def emit_float(op: OpBuilder, value: ir.Value, activation: int) -> Any:
    """`value` of the graph's own float as float32, in which all scoring is done."""
    return value if activation == FLOAT else op.Cast(value, to=FLOAT)


def emit_ramp(op: OpBuilder, length: ir.Value) -> Any:
    """0, 1, ... as float32 [length]; `length` is int64 [1]."""
    return op.Cast(op.iota(op.Squeeze(length)), to=FLOAT)


def emit_patches(op: OpBuilder, states: ir.Value) -> Any:
    """Tower states [I,1+V,Dv] without CLS: [I,V,Dv]."""
    return op.Slice(states, [1], [END], [1])


def emit_take(op: OpBuilder, tokens: ir.Value, index: ir.Value) -> Any:
    """Tokens [I,T,D] of each image at index int64 [I,K]: [I,K,D]."""
    images = op.iota(op.Squeeze(op.dim(tokens, 0)))
    first = op.Mul(op.Unsqueeze(images, [1]), op.dim(tokens, 1))
    rows = op.Reshape(tokens, op.shape(-1, op.dim(tokens, 2)))
    return op.Gather(rows, op.Add(index, first), axis=0)
