"""Attention of several tokens over slots and over each other, by ordinal, tile by tile.

Slots lie in no order of time, so that each tile is masked by what it holds; of the new tokens,
which do, only those within reach are read.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tightrope.interface.tensors import SLOT_KEY, SLOT_VALUE
from tightrope.plugins.kernels.source import KernelSource
from tightrope.plugins.kernels.tiles import attended, capped, visible
from tightrope.plugins.slot_attention.kernel_step import HEAD_DIMS
from tightrope.plugins.slot_attention.variants import NO_SCALES

TOKENS = 64
"""Queries of a program."""


@triton.jit  # type: ignore[untyped-decorator]
def slot_attention_prefill(  # type: ignore[no-untyped-def]
    query,
    key,
    value,
    slot_key,
    slot_value,
    slot_position,
    query_position,
    query_reach,
    out,
    sums,
    scale,
    softcap,
    window,
    Hq,
    Hkv,
    S,
    U,
    C,
    slot_key_scale,
    slot_value_scale,
    D: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """sums: float32 [N,Hq,S], the logarithm of a query's sum, inf where it saw nothing.

    Scales are None where slots hold floats.
    """
    WIDTH: tl.constexpr = triton.next_power_of_2(D)
    TILE: tl.constexpr = BLOCK if WIDTH <= 128 else BLOCK // 2  # wider heads would spill registers
    head, row = tl.program_id(1), tl.program_id(2)
    lane = (row * Hkv + head // (Hq // Hkv)).to(tl.int64)
    own = (row * Hq + head).to(tl.int64) * S
    query, out, key, value = (
        query + own * D,
        out + own * D,
        key + lane * S * D,
        value + lane * S * D,
    )
    slot_key, slot_value = slot_key + lane * U * D, slot_value + lane * U * D
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    column = tl.arange(0, WIDTH)
    width, asks = (column < D)[None, :], token < S
    at = token[:, None] * D + column[None, :]
    q = tl.load(query + at, mask=asks[:, None] & width, other=0.0)
    position = tl.load(query_position + row * S + token, mask=asks, other=-1)[:, None]
    reach = tl.load(query_reach + row * S + token, mask=asks, other=-1)[:, None]
    farthest = tl.max(tl.max(reach, 1), 0)
    peak = tl.full([TOKENS], -float("inf"), tl.float32)
    total = tl.zeros([TOKENS], tl.float32)
    summed = tl.zeros([TOKENS, WIDTH], tl.float32)
    for start in range(0, U, TILE):
        slot = start + tl.arange(0, TILE)
        ordinal = tl.load(slot_position + lane * C + slot, mask=slot < U, other=-1)
        place = slot[:, None] * D + column[None, :]
        held = (ordinal >= 0) & (ordinal <= farthest)
        reads = held[:, None] & width
        k = tl.load(slot_key + place, mask=reads, other=0)
        product = tl.dot(q, tl.trans(k.to(q.dtype)))
        if slot_key_scale is not None:
            product *= tl.load(slot_key_scale + lane * U + slot, mask=held, other=0.0)[None, :]
        seen = visible(ordinal[None, :], position, reach, window)
        logit = capped(product * scale, softcap)
        logit = tl.where(seen, logit, -float("inf"))
        v = tl.load(slot_value + place, mask=reads, other=0)
        if slot_value_scale is not None:
            by = tl.load(slot_value_scale + lane * U + slot, mask=held, other=0.0)
            v = v * by[:, None]
        peak, total, summed = attended(logit, v.to(q.dtype), peak, total, summed)
    end = 0
    for start in range(0, S, BLOCK):
        other = start + tl.arange(0, BLOCK)
        ordinal = tl.load(query_position + row * S + other, mask=other < S, other=-1)
        near = (ordinal >= 0) & (ordinal <= farthest)
        end = tl.maximum(end, tl.max(tl.where(near, other + 1, 0), 0))
    for start in range(0, end, TILE):
        other = start + tl.arange(0, TILE)
        ordinal = tl.load(query_position + row * S + other, mask=other < end, other=-1)
        place = other[:, None] * D + column[None, :]
        reads = (ordinal >= 0)[:, None] & width
        k = tl.load(key + place, mask=reads, other=0.0)
        v = tl.load(value + place, mask=reads, other=0.0)
        seen = visible(ordinal[None, :], position, reach, window)
        logit = capped(tl.dot(q, tl.trans(k)) * scale, softcap)
        logit = tl.where(seen, logit, -float("inf"))
        peak, total, summed = attended(logit, v, peak, total, summed)
    some = total > 0
    summed = summed / tl.where(some, total, 1.0)[:, None]
    tl.store(out + at, summed.to(out.dtype.element_ty), mask=asks[:, None] & width)
    logarithm = tl.where(some, peak + tl.log(tl.where(some, total, 1.0)), float("inf"))
    tl.store(sums + own + token, logarithm, mask=asks)


SOURCE = KernelSource(
    name="slot_attention_prefill_d{D}",
    function=slot_attention_prefill,
    signature={
        "query": "*fp16",
        "key": "*fp16",
        "value": "*fp16",
        "slot_key": "*fp16",
        "slot_value": "*fp16",
        "slot_position": "*i32",
        "query_position": "*i32",
        "query_reach": "*i32",
        "out": "*fp16",
        "sums": "*fp32",
        "scale": "fp32",
        "softcap": "fp32",
        "window": "i32",
        "Hq": "i32",
        "Hkv": "i32",
        "S": "i32",
        "U": "i32",
        "C": "i32",
    },
    sizes={"D": HEAD_DIMS},
    constants={"TOKENS": TOKENS, "BLOCK": 32, **NO_SCALES},
    grid=(f"(S + {TOKENS - 1})//{TOKENS}", "Hq", "N"),
    warps=8,
    aligned=(SLOT_KEY, SLOT_VALUE),
)
