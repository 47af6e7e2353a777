"""`Int4MatMul` in Triton for a few rows: every byte of the weight is read once.

Codes become halves without a conversion: under the exponent of 1024 a code is the lowest bits of
the mantissa. Products with codes are exact, and a block's scale is applied to its sum.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tightrope.plugins.kernels.source import KernelSource


@triton.jit
def half_of(code):  # type: ignore[no-untyped-def]
    """float16 of codes -8..7 in the low four bits of uint16."""
    bits = ((code & 0xF) ^ 0x8) | 0x6400
    return bits.to(tl.float16, bitcast=True) - 1032.0


@triton.jit  # type: ignore[untyped-decorator]
def int4_matmul(  # type: ignore[no-untyped-def]
    x,
    weight,
    scale,
    shift,
    y,
    rows,
    In,
    Out,
    block_size: tl.constexpr,
    PARTS: tl.constexpr,
    INNER: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """x: fp16 [rows,In]. weight: bytes [In,Out/2]. scale, shift: fp16 [In/block,Out].

    shift: null where there is none. Out: whole multiples of 16, for loads of whole words. A program
    makes ROWS rows of PAIRS pairs of columns. Its warps take INNER inputs each, which are a block
    or part of one.
    """
    pairs, parts = Out // 2, In // INNER
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[None, :, None]
    pair = (tl.program_id(0) * PAIRS + tl.arange(0, PAIRS))[None, None, :]
    part, inner = tl.arange(0, PARTS)[:, None, None], tl.arange(0, INNER)
    given = x + row.to(tl.int64) * In + (part * INNER + inner[None, None, :])
    codes = weight + (part * INNER + inner[None, :, None]).to(tl.int64) * pairs + pair
    is_row, is_pair = row < rows, pair < pairs
    low = tl.zeros([PARTS, ROWS, PAIRS], tl.float32)
    high = tl.zeros([PARTS, ROWS, PAIRS], tl.float32)
    for first in range(0, parts, PARTS):
        is_part = first + part < parts
        numbers = tl.load(given + first * INNER, mask=is_row & is_part, other=0.0)
        both = tl.load(codes, mask=is_pair & is_part, other=0)
        both = both.to(tl.uint8, bitcast=True).to(tl.uint16)
        at = (first + part) * INNER // block_size * Out + 2 * pair
        scale_low = tl.load(scale + at, mask=is_pair & is_part, other=0.0).to(tl.float32)
        scale_high = tl.load(scale + at + 1, mask=is_pair & is_part, other=0.0).to(tl.float32)
        low += tl.dot(numbers, half_of(both)) * scale_low
        high += tl.dot(numbers, half_of(both >> 4)) * scale_high
        codes += PARTS * INNER * pairs
    if shift.to(tl.int64) != 0:
        for first in range(0, parts, PARTS):
            is_part = first + part < parts
            numbers = tl.load(given + first * INNER, mask=is_row & is_part, other=0.0)
            total = tl.sum(numbers.to(tl.float32), 2)[:, :, None]
            at = (first + part) * INNER // block_size * Out + 2 * pair
            low += total * tl.load(shift + at, mask=is_pair & is_part, other=0.0).to(tl.float32)
            added = tl.load(shift + at + 1, mask=is_pair & is_part, other=0.0)
            high += total * added.to(tl.float32)
    made = tl.reshape(tl.join(tl.sum(low, 0), tl.sum(high, 0)), [ROWS, 2 * PAIRS])
    line = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * 2 * PAIRS + tl.arange(0, 2 * PAIRS)
    to = y + line.to(tl.int64)[:, None] * Out + column[None, :]
    tl.store(to, made.to(tl.float16), mask=(line < rows)[:, None] & (column < Out)[None, :])


SOURCE = KernelSource(
    name="int4_matmul_few_b{block_size}",
    function=int4_matmul,
    signature={
        "x": "*fp16",
        "weight": "*i8",
        "scale": "*fp16",
        "shift": "*fp16",
        "y": "*fp16",
        "rows": "i32",
        "In": "i32",
        "Out": "i32",
    },
    constants={"PARTS": 4, "INNER": 32, "ROWS": 16, "PAIRS": 32},
    sizes={"block_size": (32, 64, 128)},
    grid=("(Out + 63)//64", "(rows + 15)//16", "1"),
    warps=4,
    aligned=("x", "weight", "scale", "shift", "y", "In", "Out"),
)
