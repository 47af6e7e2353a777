"""`SelectTokens` in standard ONNX operators that TensorRT 10.3 parses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tightrope.interface.onnx import FLOAT, INT64

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

ALWAYS = np.float32(3e38)


def body(
    op: OpBuilder, score: ir.Value, candidates: ir.Value, keep_ramp: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """index [N,S-V+K] and candidates [N,K]; shapes as in the schema."""
    keep, length = op.dim(keep_ramp, 0), op.dim(score, 1)
    blank = op.Mul(score, np.float32(0))
    ones = op.Expand(np.float32(1), op.Shape(candidates))
    candidate = op.ScatterElements(blank, candidates, ones, axis=1)  # [N,S] 1 at candidates
    # What is no candidate always stays: it outranks every score.
    rank_by = op.Where(op.Greater(candidate, np.float32(0)), score, ALWAYS)
    width = op.Add(op.Sub(length, op.dim(candidates, 1)), keep)
    _, best = op.TopK(rank_by, width, outputs=2, axis=-1, largest=1, sorted=1)
    ascending, _ = op.TopK(op.Cast(best, to=FLOAT), width, outputs=2, axis=-1, largest=0, sorted=1)
    index = op.Cast(ascending, to=INT64)
    kept = op.GatherElements(candidate, index, axis=1)
    behind = op.Sub(op.Cast(width, to=FLOAT), op.Cast(op.iota(op.Squeeze(width)), to=FLOAT))
    _, places = op.TopK(op.Mul(kept, behind), keep, outputs=2, axis=-1, largest=1, sorted=1)
    return index, places
