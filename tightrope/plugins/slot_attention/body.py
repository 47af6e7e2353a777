"""`SlotAttention` in standard ONNX operators: one body for every S, one for a single token.

Each is in two parts: `attend` is done layer by layer, `keep` once for all layers together, where
scores and positions of all layers stand in one tensor.

Values never decide a shape: what leaves is found by rank, and rows are placed by scattering.
The operators are those that TensorRT 10.3 parses; its TopK bounds capacity + S below 3,840.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tightrope.plugins.slot_attention.reference import ABSENT, PROTECTED

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

MASKED = np.float32(-1e30)
END = np.iinfo(np.int64).max
FLOAT, INT32, INT64 = 1, 6, 7  # element types as ONNX numbers them


class Dims(NamedTuple):
    """What is fixed at export: heads, head width, element type and the op's attributes."""

    q_heads: int
    kv_heads: int
    head_dim: int
    dtype: int
    """Element type T as ONNX numbers it."""
    scale: float
    softcap: float
    window: int
    pool_kernel: int


@dataclass(frozen=True, slots=True)
class Shared:
    """What all layers of a call have in common, computed once outside their bodies."""

    query_position: ir.Value
    """int32 [N,S]"""
    position: ir.Value
    """int32 [N,Hkv,S]"""
    alive: ir.Value
    """bool [N,1,1], whether the row has a valid token"""
    edge: ir.Value
    """int32 [N,1,1]: ordinals above it are recent and stay"""
    sinks: ir.Value
    """int32 [1]: ordinals below it stay"""
    age: ir.Value
    """float32 [N,1,S]: what a new token's ordinal is worth at birth"""
    counted: ir.Value
    """float32 [N,S]: 1 where the query's attention counts for the scores"""
    valid: ir.Value
    """float32 [N,S]: 0 where the token is padding"""
    not_after: ir.Value
    """float32 [S,S]: 1 where row <= column; a product with it counts up"""
    decay: ir.Value
    attention: ir.Value
    key_norm: ir.Value
    pool: ir.Value
    """float32 [1] each, from the policy"""


def shared(op: OpBuilder, query_position: ir.Value, policy: ir.Value, kv_heads: int) -> Shared:
    """`Shared` of one call, from query_position int32 [N,S] and policy float32 [8]."""
    numbers = op.Split(policy, axis=0, num_outputs=8, outputs=8)
    decay, attention, position, key_norm, score_window, pool, sinks, recent = numbers
    valid = op.Cast(op.GreaterOrEqual(query_position, np.int32(0)), to=FLOAT)
    newest = op.Unsqueeze(op.ReduceMax(query_position, [1], keepdims=1), [2])  # [N,1,1]
    index = op.iota(op.scalar_dim(query_position, 1))
    ordered = op.LessOrEqual(op.Unsqueeze(index, [1]), op.Unsqueeze(index, [0]))
    not_after = op.Cast(ordered, to=FLOAT)
    place = op.MatMul(valid, not_after)
    late = op.Greater(place, op.Sub(op.ReduceMax(place, [1], keepdims=1), score_window))
    every = op.Equal(score_window, np.zeros(1, np.float32))
    wide = op.Unsqueeze(query_position, [1])
    return Shared(
        query_position=query_position,
        position=op.Expand(wide, op.shape(1, kv_heads, 1)),
        alive=op.GreaterOrEqual(newest, np.int32(0)),
        edge=op.Sub(newest, op.Cast(recent, to=INT32)),
        sinks=op.Cast(sinks, to=INT32),
        age=op.Mul(position, op.Cast(wide, to=FLOAT)),
        counted=op.Mul(valid, op.Cast(op.Or(late, every), to=FLOAT)),
        valid=valid,
        not_after=not_after,
        decay=decay,
        attention=attention,
        key_norm=key_norm,
        pool=pool,
    )


@dataclass(frozen=True, slots=True)
class Attended:
    """One layer's output and what its scores need."""

    out: ir.Value
    """T [N,Hq,S,D]"""
    mass: ir.Value
    """float32 [N,Hkv,S+C]: attention that the new tokens, then the slots received"""


def attend(
    op: OpBuilder, inputs: list[ir.Value], capacity: ir.Value, dims: Dims, common: Shared
) -> Attended:
    """Attention of one layer for any S and any slots, empty or evicted.

    inputs: query, key, value, slot_key, slot_value, slot_position [N,Hkv,C].
    capacity: C, int64 [1].
    """
    query, key, value, slot_key, slot_value, slot_position = inputs
    kv_heads, head_dim = dims.kv_heads, dims.head_dim
    group = dims.q_heads // kv_heads
    n, s, used = op.dim(query, 0), op.dim(query, 2), op.dim(slot_key, 2)

    # The query heads of a KV head are rows of one matrix.
    rows = op.Reshape(op.Mul(query, _typed(dims, dims.scale)), [0, kv_heads, -1, head_dim])
    keys = op.Concat(slot_key, key, axis=2)
    logits = op.MatMul(rows, op.Transpose(keys, perm=[0, 1, 3, 2]))  # [N,Hkv,G*S,U+S]
    logits = _capped(op, _to_float(op, logits, dims), dims)
    columns = op.Concat(op.Slice(slot_position, [0], used, [2]), common.position, axis=2)
    columns = op.Unsqueeze(columns, [2])  # [N,Hkv,1,U+S]
    row_ordinal = op.Unsqueeze(common.query_position, [1, 3])  # [N,1,S,1]
    seen = op.And(op.GreaterOrEqual(columns, np.int32(0)), op.LessOrEqual(columns, row_ordinal))
    if dims.window:
        oldest = op.Sub(row_ordinal, np.int32(dims.window))
        seen = op.And(seen, op.Greater(columns, oldest))
    bias = op.Where(seen, np.float32(0), MASKED)  # [N,Hkv,S,U+S]
    logits = op.Add(
        op.Reshape(logits, op.shape(n, kv_heads, group, s, -1)), op.Unsqueeze(bias, [2])
    )
    weight = op.Reshape(op.Softmax(logits, axis=-1), op.shape(n, kv_heads, -1, op.Add(used, s)))
    mixed = op.MatMul(_from_float(op, weight, dims), op.Concat(slot_value, value, axis=2))
    out = op.Reshape(mixed, op.shape(n, dims.q_heads, s, head_dim))
    out = op.Mul(out, _from_float(op, op.Unsqueeze(common.valid, [1, 3]), dims))

    # A row of weights picks the queries that count; one product sums them and the group.
    counted = op.Expand(op.Unsqueeze(common.counted, [1]), op.shape(1, group, 1))
    mass = op.Squeeze(op.MatMul(op.Reshape(counted, op.shape(n, 1, 1, -1)), weight), [2])
    beyond = op.ConstantOfShape(op.shape(n, kv_heads, op.Sub(capacity, used)))
    old, new = op.Slice(mass, [0], used, [2]), op.Slice(mass, used, [END], [2])
    return Attended(out, op.Concat(new, old, beyond, axis=2))


def attend_one(
    op: OpBuilder, inputs: list[ir.Value], capacity: ir.Value, dims: Dims, common: Shared
) -> Attended:
    """The same for S = 1: keys and values of the slots are read where they lie, never copied."""
    query, key, value, slot_key, slot_value, slot_position = inputs
    kv_heads, head_dim = dims.kv_heads, dims.head_dim
    used = op.dim(slot_key, 2)

    rows = op.Reshape(op.Mul(query, _typed(dims, dims.scale)), [0, kv_heads, -1, head_dim])
    columns = op.Transpose(rows, perm=[0, 1, 3, 2])  # [N,Hkv,D,G]
    old = op.Transpose(op.MatMul(slot_key, columns), perm=[0, 1, 3, 2])  # [N,Hkv,G,U]
    new = op.MatMul(rows, op.Reshape(key, [0, 0, head_dim, 1]))  # [N,Hkv,G,1]
    old, new = _to_float(op, old, dims), _to_float(op, new, dims)
    old, new = _capped(op, old, dims), _capped(op, new, dims)
    position = op.Slice(slot_position, [0], used, [2])
    if dims.window:
        oldest = op.Sub(common.position, np.int32(dims.window))
        hidden = op.LessOrEqual(position, op.Max(oldest, np.int32(-1)))
    else:
        hidden = op.Less(position, np.int32(0))
    old = op.Where(op.Unsqueeze(hidden, [2]), MASKED, old)
    weight = op.Softmax(op.Concat(new, old, axis=3), axis=-1)  # [N,Hkv,G,1+U]
    new_weight, old_weight = op.Slice(weight, [0], [1], [3]), op.Slice(weight, [1], [END], [3])
    mixed = op.Add(
        op.MatMul(_from_float(op, old_weight, dims), slot_value),
        op.Mul(_from_float(op, new_weight, dims), value),
    )
    out = op.Reshape(mixed, [0, dims.q_heads, 1, head_dim])
    out = op.Mul(out, _from_float(op, op.Unsqueeze(common.valid, [1, 3]), dims))
    mass = op.ReduceSum(weight, [2], keepdims=0)  # [N,Hkv,1+U]
    beyond = op.ConstantOfShape(op.shape(op.dim(query, 0), kv_heads, op.Sub(capacity, used)))
    return Attended(out, op.Concat(mass, beyond, axis=2))


def keep(op: OpBuilder, inputs: list[ir.Value], dims: Dims, common: Shared) -> tuple[ir.Value, ...]:
    """target, slot_score and slot_position for any S; over one layer or, stacked, over all.

    inputs: mass [..,N,Hkv,S+C], key [..,N,Hkv,S,D], slot_score and slot_position [..,N,Hkv,C],
    budget int64, to be compared with [..,N,Hkv,1].
    """
    mass, key, slot_score, slot_position, budget = inputs
    s, capacity = op.dim(key, -2), op.dim(slot_score, -1)
    lanes = op.Shape(slot_score, end=-1)  # [..,N,Hkv]
    mass_new, mass_old = op.Slice(mass, [0], s, [-1]), op.Slice(mass, s, [END], [-1])
    pooled = op.Div(
        _window_sum(op, mass_new, dims.pool_kernel),
        op.Max(_window_sum(op, op.Unsqueeze(common.valid, [1]), dims.pool_kernel), np.float32(1)),
    )
    mass_new = op.Add(mass_new, op.Mul(common.pool, op.Sub(pooled, mass_new)))
    score_old = _recur(op, common, slot_score, mass_old)
    score_new = _recur(op, common, _birth(op, common, key), mass_new)
    new_position = op.Expand(common.position, op.Concat(lanes, s, axis=0))

    # The surplus with the lowest scores leaves.
    ordinals = op.Concat(slot_position, new_position, axis=-1)  # [..,C+S]
    rank_by = op.Where(
        _protected(op, common, ordinals), PROTECTED, op.Concat(score_old, score_new, axis=-1)
    )
    present = op.GreaterOrEqual(ordinals, np.int32(0))
    rank_by = op.Where(present, rank_by, ABSENT)
    width = op.Add(capacity, s)
    _, order = op.TopK(rank_by, width, outputs=2, axis=-1, largest=0, sorted=1)
    occupied = op.ReduceSum(op.Cast(present, to=FLOAT), [-1], keepdims=1)
    surplus = op.Sub(occupied, op.Cast(budget, to=FLOAT))
    rank = op.Cast(op.iota(op.Squeeze(width)), to=FLOAT)
    lowest = op.Cast(op.Less(rank, surplus), to=FLOAT)
    leaves = op.ScatterElements(op.ConstantOfShape(op.Shape(order)), order, lowest, axis=-1)

    # Slots given up are taken first, then empty ones, each ascending. Since no call starts above
    # its budget, all that is given up is taken again.
    leaves_old = op.Slice(leaves, [0], capacity, [-1])
    empty = op.Cast(op.Less(slot_position, np.int32(0)), to=FLOAT)
    size = op.Cast(capacity, to=FLOAT)
    ahead = op.Sub(size, op.Cast(op.iota(op.Squeeze(capacity)), to=FLOAT))  # C .. 1
    wish = op.Add(op.Mul(leaves_old, op.Add(ahead, size)), op.Mul(empty, ahead))
    _, places = op.TopK(wish, capacity, outputs=2, axis=-1, largest=1, sorted=1)
    leaves_new = op.Slice(leaves, capacity, [END], [-1])
    stays = op.Mul(op.Unsqueeze(common.valid, [1]), op.Sub(np.float32(1), leaves_new))
    nth = op.Sub(op.MatMul(stays, common.not_after), np.float32(1))
    nth = op.Min(op.Max(nth, np.float32(0)), op.Sub(size, np.float32(1)))
    chosen = op.GatherElements(places, op.Cast(nth, to=INT64), axis=-1)
    staying = op.Greater(stays, np.float32(0))
    target = op.Where(staying, chosen, np.int64(-1))  # [..,N,Hkv,S]

    # What stays nowhere is scattered into a spare column that is cut off again.
    column = op.Where(staying, chosen, capacity)
    spare = op.Concat(lanes, [1], axis=0)
    position = op.Concat(slot_position, op.Expand(np.int32(-1), spare), axis=-1)
    position = op.ScatterElements(position, column, new_position, axis=-1)
    score = op.Concat(score_old, op.Expand(np.float32(0), spare), axis=-1)
    score = op.ScatterElements(score, column, score_new, axis=-1)
    # A row without a valid token changes nothing, not even by decay.
    score = op.Where(common.alive, op.Slice(score, [0], capacity, [-1]), slot_score)
    return op.Cast(target, to=INT32), score, op.Slice(position, [0], capacity, [-1])


def keep_one(
    op: OpBuilder, inputs: list[ir.Value], dims: Dims, common: Shared
) -> tuple[ir.Value, ...]:
    """The same for S = 1, where at most one slot is given up.

    Empty slots hold score 0, as every face of the op leaves them.
    """
    mass, key, slot_score, slot_position, budget = inputs
    mass_new, mass_old = op.Slice(mass, [0], [1], [-1]), op.Slice(mass, [1], [END], [-1])
    score_old = _recur(op, common, slot_score, mass_old)
    score_new = _recur(op, common, _birth(op, common, key), mass_new)

    # One ArgMin: while there is room the first empty slot is lowest, else the lowest score.
    empty = op.Less(slot_position, np.int32(0))
    occupied = op.ReduceSum(op.Cast(op.Not(empty), to=FLOAT), [-1], keepdims=1)
    room = op.Less(occupied, op.Cast(budget, to=FLOAT))  # [..,N,Hkv,1]
    rank_by = op.Where(_protected(op, common, slot_position), PROTECTED, score_old)
    rank_by = op.Where(empty, op.Where(room, -ABSENT, ABSENT), rank_by)
    victim = op.ArgMin(rank_by, axis=-1, keepdims=1)
    target = op.Where(common.alive, op.Cast(victim, to=INT32), np.int32(-1))
    new_position = op.Expand(common.position, op.Shape(victim))
    score = op.ScatterElements(score_old, victim, score_new, axis=-1)
    position = op.ScatterElements(slot_position, victim, new_position, axis=-1)
    return (
        target,
        op.Where(common.alive, score, slot_score),
        op.Where(common.alive, position, slot_position),
    )


def _typed(dims: Dims, number: float) -> Any:
    return np.float32(number) if dims.dtype == FLOAT else np.float16(number)


def _to_float(op: OpBuilder, value: ir.Value, dims: Dims) -> Any:
    return value if dims.dtype == FLOAT else op.Cast(value, to=FLOAT)


def _from_float(op: OpBuilder, value: ir.Value, dims: Dims) -> Any:
    return value if dims.dtype == FLOAT else op.Cast(value, to=dims.dtype)


def _capped(op: OpBuilder, logits: ir.Value, dims: Dims) -> Any:
    if not dims.softcap:
        return logits
    cap = np.float32(dims.softcap)
    return op.Mul(op.Tanh(op.Div(logits, cap)), cap)


def _recur(op: OpBuilder, common: Shared, score: ir.Value, mass: ir.Value) -> Any:
    return op.Add(op.Mul(common.decay, score), op.Mul(common.attention, mass))


def _birth(op: OpBuilder, common: Shared, key: ir.Value) -> Any:
    """What a new token starts at, float32 [..,N,Hkv,S]."""
    norm = op.ReduceL2(op.Cast(key, to=FLOAT), [-1], keepdims=0)
    return op.Sub(common.age, op.Mul(common.key_norm, norm))


def _protected(op: OpBuilder, common: Shared, ordinals: ir.Value) -> Any:
    return op.Or(op.Less(ordinals, common.sinks), op.Greater(ordinals, common.edge))


def _window_sum(op: OpBuilder, value: ir.Value, kernel: int) -> Any:
    """Sum over a centred window along the last axis, zeros outside; any number of axes."""
    side = kernel // 2
    flat = op.Reshape(value, op.Concat([1, -1], op.dim(value, -1), axis=0))
    mean = op.AveragePool(flat, kernel_shape=[kernel], pads=[side, side], count_include_pad=1)
    return op.Reshape(op.Mul(mean, np.float32(kernel)), op.Shape(value))
