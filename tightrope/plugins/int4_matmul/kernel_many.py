"""`Int4MatMul` in Triton for many rows: tiles for tensor cores, which each unpack their weights."""

from __future__ import annotations

from dataclasses import replace

import triton
import triton.language as tl

from tightrope.plugins.int4_matmul.kernel import SOURCE as FEW
from tightrope.plugins.int4_matmul.kernel import half_of


@triton.jit  # type: ignore[untyped-decorator]
def int4_matmul_many(  # type: ignore[no-untyped-def]
    x,
    weight,
    scale,
    shift,
    y,
    rows,
    In,
    Out,
    block_size: tl.constexpr,
    INNER: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """As for a few rows; all warps share INNER inputs."""
    pairs = Out // 2
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    pair = (tl.program_id(0) * PAIRS + tl.arange(0, PAIRS))[None, :]
    inner = tl.arange(0, INNER)
    is_row, is_pair = row < rows, pair < pairs
    given = x + row.to(tl.int64) * In + inner[None, :]
    codes = weight + inner.to(tl.int64)[:, None] * pairs + pair
    low = tl.zeros([ROWS, PAIRS], tl.float32)
    high = tl.zeros([ROWS, PAIRS], tl.float32)
    for start in range(0, In, INNER):
        part = tl.load(given + start, mask=is_row, other=0.0)
        both = tl.load(codes, mask=is_pair, other=0)
        both = both.to(tl.uint8, bitcast=True).to(tl.uint16)
        at = start // block_size * Out + 2 * pair
        scale_low = tl.load(scale + at, mask=is_pair, other=0.0).to(tl.float32)
        scale_high = tl.load(scale + at + 1, mask=is_pair, other=0.0).to(tl.float32)
        low += tl.dot(part, half_of(both)) * scale_low
        high += tl.dot(part, half_of(both >> 4)) * scale_high
        codes += INNER * pairs
    if shift.to(tl.int64) != 0:
        for start in range(0, In, INNER):
            part = tl.load(given + start, mask=is_row, other=0.0)
            total = tl.sum(part.to(tl.float32), 1)[:, None]
            at = start // block_size * Out + 2 * pair
            low += total * tl.load(shift + at, mask=is_pair, other=0.0).to(tl.float32)
            high += total * tl.load(shift + at + 1, mask=is_pair, other=0.0).to(tl.float32)
    made = tl.reshape(tl.join(low, high), [ROWS, 2 * PAIRS])
    column = tl.program_id(0) * 2 * PAIRS + tl.arange(0, 2 * PAIRS)
    to = y + row.to(tl.int64) * Out + column[None, :]
    tl.store(to, made.to(tl.float16), mask=is_row & (column < Out)[None, :])


SOURCE = replace(
    FEW,
    name="int4_matmul_many_b{block_size}",
    function=int4_matmul_many,
    constants={"INNER": 32, "ROWS": 64, "PAIRS": 32},
    grid=("(Out + 63)//64", "(rows + 63)//64", "1"),
)
