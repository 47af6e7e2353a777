"""What the bodies of `SlotAttention` share: what is fixed at export, what a call has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from tightrope.interface.onnx import FLOAT
from tightrope.interface.tensors import POLICY_NUMBERS
from tightrope.plugins.slot_attention.scores import PolicyNumbers

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

Form = Literal["general", "step", "append", "either"]
MASKED = np.float32(-1e30)


class Fixed(NamedTuple):
    """What is fixed at export: heads, head width, element type and the op's attributes."""

    q_heads: int
    kv_heads: int
    head_dim: int
    activation: int
    """Element type as ONNX numbers it."""
    scale: float
    softcap: float = 0.0
    window: int = 0
    pool_kernel: int = 5


@dataclass(frozen=True, slots=True)
class Common:
    """What all layers of a call have in common, computed once."""

    query_position: ir.Value
    """int32 [N,S]"""
    query_reach: ir.Value
    """int32 [N,S], `query_position` itself where no token attends to later ones"""
    position: ir.Value
    """int32 [N,Hkv,S]"""
    valid: ir.Value
    """float32 [N,S]: 0 where the token is padding"""
    not_after: ir.Value
    """float32 [S,S]: 1 where row <= column; a product with it counts up"""
    newest: ir.Value
    """int32 [N,1,1], -1 in a row without a valid token"""
    policy: PolicyNumbers
    """float32 [1,1,1] each, or [L,1,1,1]"""
    counted: ir.Value
    """float32 [N,S] or [L,N,S]: 1 where the query's attention counts for the scores"""


def shared(
    op: OpBuilder, queries: tuple[ir.Value, ir.Value], policy: ir.Value, kv_heads: int
) -> Common:
    """`Common` of one call.

    queries: query_position and query_reach int32 [N,S]. policy: float32 [8], or [L,8] for all.
    """
    query_position, query_reach = queries
    split = op.Split(
        op.Unsqueeze(policy, [-2, -3]), axis=-1, num_outputs=POLICY_NUMBERS, outputs=POLICY_NUMBERS
    )
    numbers = PolicyNumbers(*split)
    valid = op.Cast(op.GreaterOrEqual(query_position, np.int32(0)), to=FLOAT)
    index = op.iota(op.scalar_dim(query_position, 1))
    ordered = op.LessOrEqual(op.Unsqueeze(index, [1]), op.Unsqueeze(index, [0]))
    not_after = op.Cast(ordered, to=FLOAT)
    place = op.MatMul(valid, not_after)
    window = op.Squeeze(numbers.score_window, [-1])
    late = op.Greater(place, op.Sub(op.ReduceMax(place, [1], keepdims=1), window))
    every = op.Equal(window, np.float32(0))
    return Common(
        query_position=query_position,
        query_reach=query_reach,
        position=op.Expand(op.Unsqueeze(query_position, [1]), op.shape(1, kv_heads, 1)),
        valid=valid,
        not_after=not_after,
        newest=op.Unsqueeze(op.ReduceMax(query_position, [1], keepdims=1), [2]),
        policy=numbers,
        counted=op.Mul(valid, op.Cast(op.Or(late, every), to=FLOAT)),
    )


def capped(op: OpBuilder, logits: ir.Value, fixed: Fixed) -> Any:
    """Logits under the soft cap, if the layer has one."""
    if not fixed.softcap:
        return logits
    cap = np.float32(fixed.softcap)
    return op.Mul(op.Tanh(op.Div(logits, cap)), cap)
