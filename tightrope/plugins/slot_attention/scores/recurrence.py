"""The score of every policy that is a sum of the eight numbers.

A new token starts at `position * ordinal - key_norm * |key|`; every call then sets
`score = decay * score + attention * mass`, where the mass of new tokens may be pooled: averaged
over the valid neighbours within the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tightrope.arrays import Array, Flags, Floats
from tightrope.interface.onnx import FLOAT
from tightrope.plugins.slot_attention.scores.score import Evidence, Score

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder


def reference(given: Evidence) -> tuple[Floats, Floats]:
    """Scores of slots and new tokens of one layer."""
    decay, attention, position, key_norm, _, pool, _, _ = given.policy
    mass = given.mass_new
    if pool:
        mass = _pooled(mass, given.query_position >= 0, given.pool_kernel)
    ordinal = given.query_position[:, None].astype(np.float32)
    birth = position * ordinal - key_norm * np.linalg.norm(given.key.astype(np.float32), axis=-1)
    return (
        decay * given.slot_score + attention * given.mass_old,
        decay * birth + attention * mass,
    )


def _pooled(mass: Floats, valid: Flags, kernel: int) -> Array:
    """Mean over the valid neighbours within `kernel`; mass [N,Hkv,S], valid [N,S]."""
    side = kernel // 2
    padded = np.pad(mass, ((0, 0), (0, 0), (side, side)))
    count = np.pad(valid.astype(np.float32)[:, None], ((0, 0), (0, 0), (side, side)))
    windows = np.lib.stride_tricks.sliding_window_view
    total = windows(padded, kernel, -1).sum(-1)
    pooled: Array = total / np.maximum(windows(count, kernel, -1).sum(-1), 1)
    return pooled


def emit(op: OpBuilder, given: Evidence, single: bool) -> tuple[ir.Value, ir.Value]:
    """The same for one layer or all; a single token is its own neighbourhood."""
    policy, mass = given.policy, given.mass_new
    wide = op.Unsqueeze(given.query_position, [1])  # [N,1,S]
    if not single:
        valid = op.Cast(op.GreaterOrEqual(wide, np.int32(0)), to=FLOAT)
        count = op.Max(_window_sum(op, valid, given.pool_kernel), np.float32(1))
        pooled = op.Div(_window_sum(op, mass, given.pool_kernel), count)
        mass = op.Add(mass, op.Mul(policy.pool, op.Sub(pooled, mass)))
    norm = op.ReduceL2(op.Cast(given.key, to=FLOAT), [-1], keepdims=0)
    age = op.Mul(policy.position, op.Cast(wide, to=FLOAT))
    birth = op.Sub(age, op.Mul(policy.key_norm, norm))

    def recur(score: ir.Value, received: ir.Value) -> ir.Value:
        later: ir.Value = op.Add(op.Mul(policy.decay, score), op.Mul(policy.attention, received))
        return later

    return recur(given.slot_score, given.mass_old), recur(birth, mass)


def _window_sum(op: OpBuilder, value: ir.Value, kernel: int) -> Any:
    """Sum over a centred window along the last axis, zeros outside; any number of axes."""
    side = kernel // 2
    flat = op.Reshape(value, op.Concat([1, -1], op.dim(value, -1), axis=0))
    mean = op.AveragePool(flat, kernel_shape=[kernel], pads=[side, side], count_include_pad=1)
    return op.Reshape(op.Mul(mean, np.float32(kernel)), op.Shape(value))


RECURRENCE = Score(
    name="recurrence",
    paper="the common form of StreamingLLM, H2O, TOVA, Knorm and SnapKV",
    reference=reference,
    emit=emit,
)
