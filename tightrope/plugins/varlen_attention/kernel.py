"""`VarlenAttention` in Triton: a tile of tokens attends to the span of all its segments, masked.

Where segments begin and end is searched for each token, so that nothing is prepared by a host.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tightrope.plugins.kernels.source import KernelSource
from tightrope.plugins.kernels.tiles import attended

TOKENS = 64
"""Queries of a program."""


@triton.jit  # type: ignore[untyped-decorator]
def varlen_attention(  # type: ignore[no-untyped-def]
    query,
    key,
    value,
    cu_seqlens,
    out,
    scale,
    T,
    G,
    D: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All but cu_seqlens are halves [1,H,T,D]; G: the length of cu_seqlens."""
    WIDTH: tl.constexpr = triton.next_power_of_2(max(D, 16))
    whole = tl.program_id(1).to(tl.int64) * T * D
    query, key, value, out = query + whole, key + whole, value + whole, out + whole
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    column = tl.arange(0, WIDTH)
    width, asks = (column < D)[None, :], token < T
    begin, end = tl.zeros([TOKENS], tl.int32), tl.full([TOKENS], 2147483647, tl.int32)
    for start in range(0, G, BLOCK):
        place = start + tl.arange(0, BLOCK)
        edge = tl.load(cu_seqlens + place, mask=place < G, other=2147483647)
        behind = edge[None, :] > token[:, None]
        end = tl.minimum(end, tl.min(tl.where(behind, edge[None, :], 2147483647), 1))
        begin = tl.maximum(begin, tl.max(tl.where(behind, 0, edge[None, :]), 1))
    # Tokens past the last one have no segment.
    first = tl.min(tl.where(asks, begin, 2147483647), 0)
    last = tl.max(tl.where(asks, end, 0), 0)
    at = token[:, None] * D + column[None, :]
    q = tl.load(query + at, mask=asks[:, None] & width, other=0.0)
    peak = tl.full([TOKENS], -float("inf"), tl.float32)
    total = tl.zeros([TOKENS], tl.float32)
    summed = tl.zeros([TOKENS, WIDTH], tl.float32)
    for start in range(first, last, BLOCK):
        other = start + tl.arange(0, BLOCK)
        place = other[:, None] * D + column[None, :]
        reads = (other < last)[:, None] & width
        k = tl.load(key + place, mask=reads, other=0.0)
        v = tl.load(value + place, mask=reads, other=0.0)
        seen = (other[None, :] >= begin[:, None]) & (other[None, :] < end[:, None])
        logit = tl.where(seen, tl.dot(q, tl.trans(k)) * scale, -float("inf"))
        peak, total, summed = attended(logit, v, peak, total, summed)
    summed = summed / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(out + at, summed.to(out.dtype.element_ty), mask=asks[:, None] & width)


SOURCE = KernelSource(
    name="varlen_attention_d{D}",
    function=varlen_attention,
    signature={
        "query": "*fp16",
        "key": "*fp16",
        "value": "*fp16",
        "cu_seqlens": "*i32",
        "out": "*fp16",
        "scale": "fp32",
        "T": "i32",
        "G": "i32",
    },
    sizes={"D": range(16, 129, 8)},
    constants={"TOKENS": TOKENS, "BLOCK": 32},
    grid=(f"(T + {TOKENS - 1})//{TOKENS}", "H", "1"),
    warps=8,
)
