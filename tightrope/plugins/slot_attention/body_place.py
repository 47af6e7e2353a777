"""What becomes of slots in standard ONNX operators: score them, leave, place the new tokens.

Values never decide a shape: what leaves is found by rank, and rows are placed by scattering.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tightrope.interface.onnx import END, FLOAT, INT32, INT64
from tightrope.plugins.slot_attention.body_call import Common, Fixed, Form
from tightrope.plugins.slot_attention.reference import ABSENT, PROTECTED
from tightrope.plugins.slot_attention.scores import DEFAULT_SCORE, SCORES, Evidence

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder


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
