"""Scores after a call of several tokens, who leaves, and where those that stay go.

A program for each row and KV head. Ranks are kept in memory, where their n-th smallest is found;
slots that fall free are listed in order, and the tokens that stay take them one after the other.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tightrope.plugins.kernels.source import KernelSource
from tightrope.plugins.kernels.tiles import nth_smallest, ordered
from tightrope.plugins.slot_attention.kernel_combine import NUMBERS


@triton.jit
def leaving(rank, last, ties, gone, inside):  # type: ignore[no-untyped-def]
    """Which of these ranks leave: below `last`, and of those that equal it the first `ties`.

    gone: how many equal ones were before these; returned with those here.
    """
    equal = inside & (rank == last)
    nth = gone + tl.cumsum(equal.to(tl.int32), 0)
    leaves = inside & ((rank < last) | (equal & (nth <= ties)))
    return leaves, gone + tl.sum(equal.to(tl.int32), 0)


@triton.jit  # type: ignore[untyped-decorator]
def slot_attention_place(  # type: ignore[no-untyped-def]
    slot_score,
    slot_position,
    query_position,
    kv_budget,
    policy,
    mass,
    norms,
    ranks,
    places,
    target,
    next_slot_score,
    next_slot_position,
    pool_kernel,
    Hkv,
    S,
    U,
    C,
    BLOCK: tl.constexpr,
    PROTECTED: tl.constexpr,
    ABSENT: tl.constexpr,
):
    """mass, norms: of `slot_attention_mass`. ranks: int32 [N,Hkv,C+S]; places: int32 [N,Hkv,S]."""
    head, row = tl.program_id(0), tl.program_id(1)
    lane = (row * Hkv + head).to(tl.int64)
    old_mass, rank_at, place_at = mass + lane * (C + S), ranks + lane * (C + S), places + lane * S
    new_mass, ordinals = old_mass + C, query_position + row * S
    decay, attention = tl.load(policy), tl.load(policy + 1)
    birth_by, norm_by = tl.load(policy + 2), tl.load(policy + 3)
    pool = tl.load(policy + 5)
    sinks, recent = tl.load(policy + 6), tl.load(policy + 7)
    newest, side = -1, pool_kernel // 2
    for start in range(0, S, BLOCK):
        token = start + tl.arange(0, BLOCK)
        position = tl.load(ordinals + token, mask=token < S, other=-1)
        newest = tl.maximum(newest, tl.max(position, 0))

    held = 0
    for start in range(0, C, BLOCK):
        slot = start + tl.arange(0, BLOCK)
        inside = slot < C
        before = tl.load(slot_score + lane * C + slot, mask=inside, other=0.0)
        ordinal = tl.load(slot_position + lane * C + slot, mask=inside, other=-1)
        score = decay * before + attention * tl.load(old_mass + slot, mask=slot < U, other=0.0)
        safe = (ordinal < sinks) | (ordinal > newest - recent)
        rank = tl.where(ordinal < 0, ABSENT, tl.where(safe, PROTECTED, score))
        tl.store(rank_at + slot, ordered(rank), mask=inside)
        score = tl.where(newest >= 0, score, before)
        tl.store(next_slot_score + lane * C + slot, score, mask=inside)
        held += tl.sum((ordinal >= 0).to(tl.int32), 0)
    for start in range(0, S, BLOCK):
        token = start + tl.arange(0, BLOCK)
        inside = token < S
        position = tl.load(ordinals + token, mask=inside, other=-1)
        received = tl.load(new_mass + token, mask=inside, other=0.0)
        if pool > 0:
            pooled, count = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
            for step in range(0, pool_kernel):
                near = token + step - side
                there = (near >= 0) & (near < S)
                valid = tl.load(ordinals + near, mask=there, other=-1) >= 0
                pooled += tl.load(new_mass + near, mask=there, other=0.0)
                count += valid.to(tl.float32)
            received = pooled / tl.maximum(count, 1.0)
        norm = tl.load(norms + lane * S + token, mask=inside, other=0.0)
        score = decay * (birth_by * position - norm_by * norm) + attention * received
        safe = (position < sinks) | (position > newest - recent)
        rank = tl.where(position < 0, ABSENT, tl.where(safe, PROTECTED, score))
        tl.store(rank_at + C + token, ordered(rank), mask=inside)
        tl.store(norms + lane * S + token, score, mask=inside)  # from here on the token's score
        held += tl.sum((position >= 0).to(tl.int32), 0)

    tl.debug_barrier()  # ranks, norms and scores were written by other threads
    surplus = tl.maximum(held - tl.load(kv_budget + head), 0).to(tl.int32)
    last, below = nth_smallest(rank_at, tl.where(surplus > 0, C + S, 0), surplus, BLOCK)
    last = tl.where(surplus > 0, last, -2147483648)  # below every rank
    ties, gone, left = tl.where(surplus > 0, surplus - below, 0), 0, 0
    for start in range(0, C, BLOCK):
        slot = start + tl.arange(0, BLOCK)
        inside = slot < C
        rank = tl.load(rank_at + slot, mask=inside, other=0)
        ordinal = tl.load(slot_position + lane * C + slot, mask=inside, other=-1)
        leaves, gone = leaving(rank, last, ties, gone, inside)
        nth = left + tl.cumsum(leaves.to(tl.int32), 0) - 1
        tl.store(place_at + nth, slot, mask=leaves & (nth < S))
        left += tl.sum(leaves.to(tl.int32), 0)
        after = tl.where(leaves, -1, ordinal)
        tl.store(next_slot_position + lane * C + slot, after, mask=inside)
        tl.store(next_slot_score + lane * C + slot, 0.0, mask=inside & (newest >= 0) & (after < 0))
    for start in range(0, C, BLOCK):
        slot = start + tl.arange(0, BLOCK)
        ordinal = tl.load(slot_position + lane * C + slot, mask=slot < C, other=0)
        nth = left + tl.cumsum((ordinal < 0).to(tl.int32), 0) - 1
        tl.store(place_at + nth, slot, mask=(ordinal < 0) & (nth < S))
        left += tl.sum((ordinal < 0).to(tl.int32), 0)

    tl.debug_barrier()  # places and what becomes of their slots
    taken = 0
    for start in range(0, S, BLOCK):
        token = start + tl.arange(0, BLOCK)
        inside = token < S
        position = tl.load(ordinals + token, mask=inside, other=-1)
        rank = tl.load(rank_at + C + token, mask=inside, other=0)
        leaves, gone = leaving(rank, last, ties, gone, inside)
        stays = inside & (position >= 0) & ~leaves
        nth = taken + tl.cumsum(stays.to(tl.int32), 0) - 1
        stays = stays & (nth < left)
        place = tl.load(place_at + nth, mask=stays, other=-1)
        score = tl.load(norms + lane * S + token, mask=stays, other=0.0)
        tl.store(target + lane * S + token, place, mask=inside)
        tl.store(next_slot_position + lane * C + place, position, mask=stays)
        tl.store(next_slot_score + lane * C + place, score, mask=stays)
        taken += tl.sum(stays.to(tl.int32), 0)


SOURCE = KernelSource(
    name="slot_attention_place",
    function=slot_attention_place,
    signature={
        "slot_score": "*fp32",
        "slot_position": "*i32",
        "query_position": "*i32",
        "kv_budget": "*i64",
        "policy": "*fp32",
        "mass": "*fp32",
        "norms": "*fp32",
        "ranks": "*i32",
        "places": "*i32",
        "target": "*i32",
        "next_slot_score": "*fp32",
        "next_slot_position": "*i32",
        "pool_kernel": "i32",
        "Hkv": "i32",
        "S": "i32",
        "U": "i32",
        "C": "i32",
    },
    constants={"BLOCK": 1024, **NUMBERS},
    grid=("Hkv", "N", "1"),
    warps=8,
)
