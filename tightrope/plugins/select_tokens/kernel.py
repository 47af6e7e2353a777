"""`SelectTokens` in Triton: one program a row finds the K-th best score, then passes in order.

Nothing is sorted. Scores become whole numbers of the same order; the K-th best is found byte by
byte, from histograms; and then every token knows by counting where it goes. Candidates ascend.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tightrope.plugins.kernels.source import KernelSource


@triton.jit
def ascending(number):  # type: ignore[no-untyped-def]
    """uint32 in the order of float32; zeros of either sign are equal."""
    bits = tl.where(number == 0, 0.0, number).to(tl.uint32, bitcast=True)
    return tl.where((bits >> 31) != 0, bits ^ 0xFFFFFFFF, bits | 0x80000000)


@triton.jit
def next_byte(counts, wanted, prefix):  # type: ignore[no-untyped-def]
    """The prefix one byte longer, and how many are wanted among the keys that begin with it.

    counts: of keys by the byte that follows the prefix. The wanted-th smallest key has it.
    """
    before = tl.cumsum(counts, 0) - counts
    byte = tl.sum((before + counts < wanted).to(tl.int32))
    passed = tl.sum(tl.where(tl.arange(0, 256) < byte, counts, 0))
    return (prefix << 8) | byte.to(tl.uint32), wanted - passed


@triton.jit  # type: ignore[untyped-decorator]
def select_tokens(  # type: ignore[no-untyped-def]
    score, candidates, index, next_candidates, S, V, K, BLOCK: tl.constexpr
):
    """score: fp32 [N,S]. candidates: int64 [N,V]. index: [N,S-V+K]. next_candidates: [N,K]."""
    row = tl.program_id(0).to(tl.int64)
    score += row * S
    candidates += row * V
    index += row * (S - V + K)
    next_candidates += row * K
    # The best is the smallest key: keys are those of negated scores.
    edge = tl.zeros([], tl.uint32)
    wanted = K
    for step in tl.static_range(4):
        counts = tl.zeros([256], tl.int32)
        for start in range(0, V, BLOCK):
            nth = start + tl.arange(0, BLOCK)
            place = tl.load(candidates + nth, mask=nth < V, other=0)
            key = ascending(-tl.load(score + place, mask=nth < V, other=0.0))
            fits = nth < V
            if step:
                fits = fits & ((key >> (32 - 8 * step)) == edge)
            byte = ((key >> (24 - 8 * step)) & 0xFF).to(tl.int32)
            counts += tl.histogram(byte, 256, mask=fits)
        edge, wanted = next_byte(counts, wanted, edge)
    # Of those on the edge, the first `wanted` are kept.
    ties, written, kept = 0, 0, 0
    for start in range(0, S, BLOCK):
        token = start + tl.arange(0, BLOCK)
        first, end = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32) + V
        width = V
        while width > 0:  # first: how many candidates are lower
            middle = (first + end) // 2
            open = first < end
            below = tl.load(candidates + middle, mask=open, other=0) < token
            first = tl.where(open & below, middle + 1, first)
            end = tl.where(open & ~below, middle, end)
            width = width // 2
        found = tl.load(candidates + first, mask=first < V, other=-1) == token
        key = ascending(-tl.load(score + token, mask=token < S, other=0.0))
        tie = found & (key == edge)
        nth_tie = ties + tl.cumsum(tie.to(tl.int32), 0)
        best = found & ((key < edge) | (tie & (nth_tie <= wanted)))
        stays = (token < S) & (best | ~found)
        to = written + tl.cumsum(stays.to(tl.int32), 0) - 1
        nth_best = kept + tl.cumsum(best.to(tl.int32), 0) - 1
        tl.store(index + to, token.to(tl.int64), mask=stays)
        tl.store(next_candidates + nth_best, to.to(tl.int64), mask=best)
        ties += tl.sum(tie.to(tl.int32))
        written += tl.sum(stays.to(tl.int32))
        kept += tl.sum(best.to(tl.int32))


SOURCE = KernelSource(
    name="select_tokens",
    function=select_tokens,
    signature={
        "score": "*fp32",
        "candidates": "*i64",
        "index": "*i64",
        "next_candidates": "*i64",
        "S": "i32",
        "V": "i32",
        "K": "i32",
    },
    constants={"BLOCK": 1024},
    grid=("N", "1", "1"),
    warps=8,
)
