"""Attention of one token over its slots, in splits: what a program sees is combined afterwards.

Query heads that share a KV head are the rows of one tile, so that keys and values are read once.
A slot that is empty or out of sight is not read.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tightrope.interface.tensors import SLOT_KEY, SLOT_VALUE
from tightrope.plugins.kernels.source import KernelSource
from tightrope.plugins.kernels.tiles import attended, capped, visible
from tightrope.plugins.slot_attention.plugin import SPLIT
from tightrope.plugins.slot_attention.variants import NO_SCALES

ROWS = 16
"""Query heads a KV head at most: the least that a tensor core multiplies."""
HEAD_DIMS = range(16, 257, 16)


@triton.jit  # type: ignore[untyped-decorator]
def slot_attention_step(  # type: ignore[no-untyped-def]
    query,
    slot_key,
    slot_value,
    slot_position,
    query_position,
    query_reach,
    shares,
    peaks,
    logits,
    scale,
    softcap,
    window,
    Hq,
    Hkv,
    U,
    C,
    splits,
    slot_key_scale,
    slot_value_scale,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """shares: float32 [N,Hq,splits,D], not yet divided; peaks: [N,Hq,splits,2], peak and sum.

    logits: float32 [N,Hq,U], -inf out of sight. The rest is the op's, with S = 1.
    Scales are None where slots hold floats.
    """
    WIDTH: tl.constexpr = triton.next_power_of_2(D)
    split, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    group, lane = Hq // Hkv, (row * Hkv + head).to(tl.int64)
    member, column = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    belongs, width = (member < group)[:, None], (column < D)[None, :]
    first = lane * group
    heads = first + member[:, None]
    q = tl.load(query + heads * D + column[None, :], mask=belongs & width, other=0.0)
    position, reach = tl.load(query_position + row), tl.load(query_reach + row)
    peak = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, SPLIT, BLOCK):
        slot = split * SPLIT + start + tl.arange(0, BLOCK)
        ordinal = tl.load(slot_position + lane * C + slot, mask=slot < U, other=-1)
        seen = visible(ordinal, position, reach, window)
        at = (lane * U + slot)[:, None] * D + column[None, :]
        reads = seen[:, None] & width
        key = tl.load(slot_key + at, mask=reads, other=0)
        product = tl.dot(q, tl.trans(key.to(q.dtype)))
        if slot_key_scale is not None:
            product *= tl.load(slot_key_scale + lane * U + slot, mask=seen, other=0.0)[None, :]
        logit = capped(product * scale, softcap)
        logit = tl.where(seen[None, :], logit, -float("inf"))
        tl.store(logits + heads * U + slot[None, :], logit, mask=belongs & (slot < U)[None, :])
        value = tl.load(slot_value + at, mask=reads, other=0)
        if slot_value_scale is not None:
            by = tl.load(slot_value_scale + lane * U + slot, mask=seen, other=0.0)
            value = value * by[:, None]
        peak, total, out = attended(logit, value.to(q.dtype), peak, total, out)
    share = (first + member) * splits + split
    tl.store(shares + share[:, None] * D + column[None, :], out, mask=belongs & width)
    tl.store(peaks + share * 2, peak, mask=member < group)
    tl.store(peaks + share * 2 + 1, total, mask=member < group)


SOURCE = KernelSource(
    name="slot_attention_step_d{D}",
    function=slot_attention_step,
    signature={
        "query": "*fp16",
        "slot_key": "*fp16",
        "slot_value": "*fp16",
        "slot_position": "*i32",
        "query_position": "*i32",
        "query_reach": "*i32",
        "shares": "*fp32",
        "peaks": "*fp32",
        "logits": "*fp32",
        "scale": "fp32",
        "softcap": "fp32",
        "window": "i32",
        "Hq": "i32",
        "Hkv": "i32",
        "U": "i32",
        "C": "i32",
        "splits": "i32",
    },
    sizes={"D": HEAD_DIMS},
    constants={"ROWS": ROWS, "SPLIT": SPLIT, "BLOCK": 32, **NO_SCALES},
    grid=("splits", "Hkv", "N"),
    warps=4,
    aligned=(SLOT_KEY, SLOT_VALUE),
)
