"""`SlotAttention` in standard ONNX operators, cut as the reference is: attend, score, leave, place.

Four forms of one rule:

general   any S: what leaves is found by ranking slots and new tokens together
step      S = 1: at most one slot is given up
append    any S for which every row has enough empty slots: nothing leaves inside the call, and
          whoever owns the slots trims them afterwards, with the same ranking
either    any S: append where there are enough empty slots, else general, decided in the call

Values never decide a shape: what leaves is found by rank, and rows are placed by scattering. The
operators are those that TensorRT 10.3 parses; its TopK bounds C + S of the general form.
Attending is done layer by layer; the rest may be done once for all layers, whose arrays then have
a leading axis L.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from tightrope.interface.onnx import END, FLOAT, INT32, INT64
from tightrope.interface.tensors import POLICY_NUMBERS
from tightrope.plugins.slot_attention.reference import ABSENT, PROTECTED
from tightrope.plugins.slot_attention.scores import DEFAULT_SCORE, SCORES, Evidence, PolicyNumbers

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


class _Scored(NamedTuple):
    """What placing works from."""

    old: ir.Value
    """Scores of the slots, [..,N,Hkv,C]"""
    new: ir.Value
    """Scores of the new tokens, [..,N,Hkv,S]"""
    slot_position: ir.Value
    kv_budget: ir.Value
    """To be compared with [..,N,Hkv,1]"""
    common: Common


def body(
    op: OpBuilder, operands: list[ir.Value], fixed: Fixed, form: Form, score: str = DEFAULT_SCORE
) -> tuple[ir.Value, ...]:
    """The whole op in one form: inputs and outputs as in the schema."""
    query, key, value, slot_key, slot_value, slot_score, slot_position = operands[:7]
    query_position, kv_budget, policy, query_reach = operands[7:]
    common = shared(op, (query_position, query_reach), policy, fixed.kv_heads)
    rows = [query, key, value, slot_key, slot_value, slot_position]
    out, mass = attend(op, rows, common.counted, fixed, common, form)
    old, new = scored(op, (mass, key, slot_score, slot_key), fixed, common, form, score)
    settled = settle(
        op, old, new, (slot_score, slot_position, op.Unsqueeze(kv_budget, [1])), common, form
    )
    return out, *settled


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
    out = _unpadded(op, op.Reshape(mixed, op.shape(n, fixed.q_heads, s, head_dim)), fixed, common)

    # A row of weights picks the queries that count; one product sums them and the group.
    picked = op.Expand(op.Unsqueeze(counted, [1]), op.shape(1, group, 1))
    mass = op.Squeeze(op.MatMul(op.Reshape(picked, op.shape(n, 1, 1, -1)), weight), [2])
    old, new = op.Slice(mass, [0], used, [2]), op.Slice(mass, used, [END], [2])
    return out, op.Concat(new, old, _beyond(op, slot_position, slot_key), axis=2)


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


def scored(
    op: OpBuilder,
    operands: tuple[ir.Value, ir.Value, ir.Value, ir.Value | None],
    fixed: Fixed,
    common: Common,
    form: Form,
    score: str = DEFAULT_SCORE,
) -> tuple[ir.Value, ir.Value]:
    """Scores of slots [..,N,Hkv,C] and new tokens [..,N,Hkv,S], of one layer or of all.

    operands: mass [..,N,Hkv,S+C], key [..,N,Hkv,S,D], slot_score [..,N,Hkv,C], slot_key or None.
    """
    mass, key, slot_score, slot_key = operands
    s = op.dim(key, -2)
    evidence = Evidence(
        mass_old=op.Slice(mass, s, [END], [-1]),
        mass_new=op.Slice(mass, [0], s, [-1]),
        key=key,
        slot_score=slot_score,
        query_position=common.query_position,
        policy=common.policy,
        slot_key=slot_key,
        pool_kernel=fixed.pool_kernel,
    )
    return SCORES[score].emit(op, evidence, form == "step")


def settle(
    op: OpBuilder,
    old: ir.Value,
    new: ir.Value,
    slots: tuple[ir.Value, ir.Value, ir.Value],
    common: Common,
    form: Form,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """target, slot_score and slot_position after the call, of one layer or of all.

    old, new: the scores. slots: slot_score and slot_position [..,N,Hkv,C], kv_budget int64, to be
    compared with [..,N,Hkv,1].
    """
    slot_score, slot_position, kv_budget = slots
    call = _Scored(old, new, slot_position, kv_budget, common)
    target, score, position = _PLACE[form](op, call)
    # A row without a valid token changes nothing, not even by decay.
    alive = op.GreaterOrEqual(common.newest, np.int32(0))
    return target, op.Where(alive, score, slot_score), position


def _place_ranked(op: OpBuilder, call: _Scored) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Any S: survivors among the new take the slots given up first, then empty ones, ascending.

    Since no call starts above its budget, all that is given up is taken again.
    """
    old, new, slot_position, kv_budget, common = call
    s, capacity = op.dim(new, -1), op.dim(slot_position, -1)
    lanes = op.Shape(slot_position, end=-1)  # [..,N,Hkv]
    new_position = op.Expand(common.position, op.Concat(lanes, s, axis=0))
    leaves = _leave(
        op,
        op.Concat(old, new, axis=-1),
        op.Concat(slot_position, new_position, axis=-1),
        kv_budget,
        common,
    )
    leaves_old = op.Slice(leaves, [0], capacity, [-1])
    empty = op.Cast(op.Less(slot_position, np.int32(0)), to=FLOAT)
    size = op.Cast(capacity, to=FLOAT)
    column = op.Cast(op.iota(op.Squeeze(capacity)), to=FLOAT)
    # Given up: 2C - c, empty: C - c, else below zero.
    preference = op.Sub(op.Mul(size, op.Add(op.Add(leaves_old, leaves_old), empty)), column)
    _, places = op.TopK(preference, capacity, outputs=2, axis=-1, largest=1, sorted=1)
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
    score = op.Concat(old, op.Expand(np.float32(0), spare), axis=-1)
    score = op.ScatterElements(score, column, new, axis=-1)
    return (
        op.Cast(target, to=INT32),
        op.Slice(score, [0], capacity, [-1]),
        op.Slice(position, [0], capacity, [-1]),
    )


def _leave(
    op: OpBuilder, scores: ir.Value, ordinals: ir.Value, kv_budget: ir.Value, common: Common
) -> Any:
    """1.0 in [..,N,Hkv,C+S] for the surplus with the lowest scores."""
    rank_by = op.Where(_protected(op, common, ordinals), PROTECTED, scores)
    present = op.GreaterOrEqual(ordinals, np.int32(0))
    rank_by = op.Where(present, rank_by, ABSENT)
    width = op.dim(ordinals, -1)
    _, order = op.TopK(rank_by, width, outputs=2, axis=-1, largest=0, sorted=1)
    surplus = op.Sub(_count(op, present), op.Cast(kv_budget, to=FLOAT))
    rank = op.Cast(op.iota(op.Squeeze(width)), to=FLOAT)
    lowest = op.Cast(op.Less(rank, surplus), to=FLOAT)
    return op.ScatterElements(op.ConstantOfShape(op.Shape(order)), order, lowest, axis=-1)


def _place_one(op: OpBuilder, call: _Scored) -> tuple[ir.Value, ir.Value, ir.Value]:
    """S = 1: while there is room the first empty slot is lowest, else the lowest score.

    Empty slots hold score 0, as every face of the op leaves them.
    """
    old, new, slot_position, kv_budget, common = call
    alive = op.GreaterOrEqual(common.newest, np.int32(0))
    empty = op.Less(slot_position, np.int32(0))
    room = op.Less(_count(op, op.Not(empty)), op.Cast(kv_budget, to=FLOAT))  # [..,N,Hkv,1]
    rank_by = op.Where(_protected(op, common, slot_position), PROTECTED, old)
    rank_by = op.Where(empty, op.Where(room, -ABSENT, ABSENT), rank_by)
    victim = op.ArgMin(rank_by, axis=-1, keepdims=1)
    new_position = op.Expand(common.position, op.Shape(victim))
    position = op.ScatterElements(slot_position, victim, new_position, axis=-1)
    return (
        op.Where(alive, op.Cast(victim, to=INT32), np.int32(-1)),
        op.ScatterElements(old, victim, new, axis=-1),
        op.Where(alive, position, slot_position),
    )


def _place_behind(op: OpBuilder, call: _Scored) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Any S: the new tokens, whose padding stands last, go behind the occupied slots."""
    old, new, slot_position, _, common = call
    s, capacity = op.dim(new, -1), op.dim(slot_position, -1)
    occupied = _count(op, op.GreaterOrEqual(slot_position, np.int32(0)))  # [..,N,Hkv,1]
    nth = op.Cast(op.iota(op.Squeeze(s)), to=FLOAT)
    wide_valid = op.Greater(op.Unsqueeze(common.valid, [1]), np.float32(0))  # [N,1,S]
    target = op.Where(wide_valid, op.Cast(op.Add(occupied, nth), to=INT32), np.int32(-1))

    column = op.Cast(op.iota(op.Squeeze(capacity)), to=FLOAT)
    place = op.Sub(column, occupied)  # [..,N,Hkv,C], among the new tokens
    count = op.Unsqueeze(op.ReduceSum(common.valid, [1], keepdims=1), [2])  # [N,1,1]
    taken = op.And(op.GreaterOrEqual(place, np.float32(0)), op.Less(place, count))
    last = op.Sub(op.Cast(s, to=FLOAT), np.float32(1))
    place = op.Cast(op.Min(op.Max(place, np.float32(0)), last), to=INT64)
    lanes = op.Shape(slot_position, end=-1)
    new_position = op.Expand(common.position, op.Concat(lanes, s, axis=0))
    position, score = (
        op.Where(taken, op.GatherElements(value, place, axis=-1), before)
        for value, before in ((new_position, slot_position), (new, old))
    )
    return target, score, position


def _place_by_room(op: OpBuilder, call: _Scored) -> tuple[ir.Value, ...]:
    """Any S: behind the occupied slots if C has room for all of both, else ranked."""
    occupied = _count(op, op.GreaterOrEqual(call.slot_position, np.int32(0)))
    most = op.ReduceMax(occupied, keepdims=0)
    free = op.Sub(op.Cast(op.scalar_dim(call.slot_position, -1), to=FLOAT), most)
    fits = op.GreaterOrEqual(free, op.Cast(op.scalar_dim(call.new, -1), to=FLOAT))
    then, otherwise = op.inner("then"), op.inner("else")
    behind, ranked = _place_behind(then, call), _place_ranked(otherwise, call)
    return op.branch(fits, then, behind, otherwise, ranked)


_Place = Callable[["OpBuilder", _Scored], "tuple[ir.Value, ...]"]
_PLACE: dict[Form, _Place] = {
    "general": _place_ranked,
    "step": _place_one,
    "append": _place_behind,
    "either": _place_by_room,
}


def _count(op: OpBuilder, flags: ir.Value) -> Any:
    return op.ReduceSum(op.Cast(flags, to=FLOAT), [-1], keepdims=1)


def _protected(op: OpBuilder, common: Common, ordinals: ir.Value) -> Any:
    """Which of the ordinals [..,N,Hkv,*] are sinks or recent."""
    sinks, recent = (
        op.Cast(number, to=INT32) for number in (common.policy.sinks, common.policy.recent)
    )
    edge = op.Sub(common.newest, recent)
    return op.Or(op.Less(ordinals, sinks), op.Greater(ordinals, edge))


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


def capped(op: OpBuilder, logits: ir.Value, fixed: Fixed) -> Any:
    """Logits under the soft cap, if the layer has one."""
    if not fixed.softcap:
        return logits
    cap = np.float32(fixed.softcap)
    return op.Mul(op.Tanh(op.Div(logits, cap)), cap)
