"""The splits of one token's attention become one; scores, who leaves, and the token's slot follow.

A program for each row and KV head. The budget was kept before the call, so that one leaves at most.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tightrope.plugins.kernels.source import KernelSource
from tightrope.plugins.kernels.tiles import capped
from tightrope.plugins.slot_attention.kernel_step import HEAD_DIMS, ROWS
from tightrope.plugins.slot_attention.reference import ABSENT, PROTECTED

NUMBERS = {"PROTECTED": float(PROTECTED), "ABSENT": float(ABSENT)}


@triton.jit  # type: ignore[untyped-decorator]
def slot_attention_combine(  # type: ignore[no-untyped-def]
    query,
    key,
    value,
    slot_score,
    slot_position,
    query_position,
    query_reach,
    kv_budget,
    policy,
    shares,
    peaks,
    logits,
    out,
    target,
    next_slot_score,
    next_slot_position,
    scale,
    softcap,
    Hq,
    Hkv,
    U,
    C,
    splits,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    PROTECTED: tl.constexpr,
    ABSENT: tl.constexpr,
):
    """shares, peaks and logits: as `slot_attention_step` leaves them. The rest is the op's."""
    WIDTH: tl.constexpr = triton.next_power_of_2(D)
    FAR: tl.constexpr = 2147483647
    head, row = tl.program_id(0), tl.program_id(1)
    group, lane = Hq // Hkv, (row * Hkv + head).to(tl.int64)
    member, column = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    first, width = lane * group, column < D
    heads, within = first + member, (member < group)[:, None] & width[None, :]
    position, reach = tl.load(query_position + row), tl.load(query_reach + row)
    valid = position >= 0

    at = heads[:, None] * D + column[None, :]
    q = tl.load(query + at, mask=within, other=0.0).to(tl.float32)
    k = tl.load(key + lane * D + column, mask=width, other=0.0).to(tl.float32)
    v = tl.load(value + lane * D + column, mask=width, other=0.0).to(tl.float32)
    logit = capped(tl.sum(q * k[None, :], 1) * scale, softcap)
    counts = (member < group) & valid & (position <= reach)
    peak = tl.where(counts, logit, -float("inf"))
    total = tl.where(peak > -float("inf"), 1.0, 0.0)
    summed = total[:, None] * v[None, :]
    own = peak
    for split in range(0, splits):
        share = heads * splits + split
        theirs = tl.load(peaks + share * 2, mask=member < group, other=-float("inf"))
        weight = tl.load(peaks + share * 2 + 1, mask=member < group, other=0.0)
        part = tl.load(shares + share[:, None] * D + column[None, :], mask=within, other=0.0)
        higher = tl.maximum(peak, theirs)
        base = tl.where(higher == -float("inf"), 0.0, higher)
        ours, other = tl.exp(peak - base), tl.exp(theirs - base)
        total = total * ours + weight * other
        summed = summed * ours[:, None] + part * other[:, None]
        peak = higher
    base = tl.where(peak == -float("inf"), 0.0, peak)
    divisor = tl.where(total > 0, total, 1.0)
    result = summed / divisor[:, None]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=within)

    decay, attention = tl.load(policy), tl.load(policy + 1)
    sinks, recent = tl.load(policy + 6), tl.load(policy + 7)
    best, leaver, empty, held = float("inf"), FAR, FAR, 0
    for start in range(0, C, BLOCK):
        slot = start + tl.arange(0, BLOCK)
        inside = slot < C
        before = tl.load(slot_score + lane * C + slot, mask=inside, other=0.0)
        ordinal = tl.load(slot_position + lane * C + slot, mask=inside, other=-1)
        seen = tl.load(
            logits + heads[:, None] * U + slot[None, :],
            mask=(member < group)[:, None] & (slot < U)[None, :],
            other=-float("inf"),
        )
        mass = tl.sum(tl.exp(seen - base[:, None]) / divisor[:, None], 0)
        score = decay * before + attention * tl.where(valid, mass, 0.0)
        after = tl.where(valid, tl.where(ordinal < 0, 0.0, score), before)
        tl.store(next_slot_score + lane * C + slot, after, mask=inside)
        tl.store(next_slot_position + lane * C + slot, ordinal, mask=inside)
        safe = (ordinal < sinks) | (ordinal > position - recent)
        rank = tl.where(ordinal < 0, ABSENT, tl.where(safe, PROTECTED, score))
        rank = tl.where(inside, rank, float("inf"))
        lowest = tl.min(rank, 0)
        lower = lowest < best
        leaver = tl.where(lower, tl.min(tl.where(rank == lowest, slot, FAR), 0), leaver)
        best = tl.where(lower, lowest, best)
        empty = tl.minimum(empty, tl.min(tl.where(inside & (ordinal < 0), slot, FAR), 0))
        held += tl.sum((ordinal >= 0).to(tl.int32), 0)

    mass = tl.sum(tl.exp(own - base) / divisor, 0)
    norm = tl.sqrt(tl.sum(k * k, 0))
    birth = tl.load(policy + 2) * position - tl.load(policy + 3) * norm
    score = decay * birth + attention * mass
    safe = (position < sinks) | (position > position - recent)
    rank = tl.where(valid, tl.where(safe, PROTECTED, score), ABSENT)
    surplus = held + valid.to(tl.int32) - tl.load(kv_budget + head)
    leaves = (surplus > 0) & (rank >= best)
    stays = valid & ((surplus <= 0) | (rank >= best))
    place = tl.where(leaves, leaver, tl.where(empty < FAR, empty, 0))
    tl.store(target + lane, tl.where(stays, place, -1))
    tl.debug_barrier()  # what other threads wrote of that slot comes first
    tl.store(next_slot_position + lane * C + place, tl.where(stays, position, -1), stays | leaves)
    tl.store(next_slot_score + lane * C + place, score, mask=stays)


SOURCE = KernelSource(
    name="slot_attention_combine_d{D}",
    function=slot_attention_combine,
    signature={
        "query": "*fp16",
        "key": "*fp16",
        "value": "*fp16",
        "slot_score": "*fp32",
        "slot_position": "*i32",
        "query_position": "*i32",
        "query_reach": "*i32",
        "kv_budget": "*i64",
        "policy": "*fp32",
        "shares": "*fp32",
        "peaks": "*fp32",
        "logits": "*fp32",
        "out": "*fp16",
        "target": "*i32",
        "next_slot_score": "*fp32",
        "next_slot_position": "*i32",
        "scale": "fp32",
        "softcap": "fp32",
        "Hq": "i32",
        "Hkv": "i32",
        "U": "i32",
        "C": "i32",
        "splits": "i32",
    },
    sizes={"D": HEAD_DIMS},
    constants={"ROWS": ROWS, "BLOCK": 128, **NUMBERS},
    grid=("Hkv", "N", "1"),
    warps=4,
)
