"""`commit` to slots in int8, in Triton: a program for each new token of a row, head and layer.

It rounds the token's key, then its value, to whole numbers with one scale each.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tightrope.plugins.commit import Int8Row
from tightrope.plugins.commit.reference import LARGEST
from tightrope.plugins.kernels.source import KernelSource

COLUMNS = len(Int8Row._fields)
WIDEST = 256
"""Numbers of a head that a program holds."""
NEAREST = 12582912.0
"""1.5 * 2**23: float32 of that size have no fraction, so that adding it rounds, halves to even."""


@triton.jit  # type: ignore[untyped-decorator]
def commit_int8(  # type: ignore[no-untyped-def]
    table,
    lanes,
    width,
    COLUMNS: tl.constexpr,
    WIDEST: tl.constexpr,
    LARGEST: tl.constexpr,
    NEAREST: tl.constexpr,
):
    """table: int64 [L,COLUMNS]. lanes: rows times heads. width: of one token's key, and value."""
    token, lane, layer = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = table + layer * COLUMNS
    target = tl.load(row + 6).to(tl.pointer_type(tl.int32))
    capacity, length = tl.load(row + 7), tl.load(row + 8)
    # Layers may differ in length; the grid has the longest.
    place = tl.load(target + lane * length + token, mask=token < length, other=-1)
    source, to = lane * length + token, lane * capacity + place
    column = tl.arange(0, WIDEST)
    inside = (column < width) & (place >= 0)
    for part in tl.static_range(2):
        slots = tl.load(row + part).to(tl.pointer_type(tl.int8))
        scales = tl.load(row + 2 + part).to(tl.pointer_type(tl.float32))
        new = tl.load(row + 4 + part).to(tl.pointer_type(tl.float16))
        number = tl.load(new + source * width + column, mask=inside, other=0.0).to(tl.float32)
        scale = tl.div_rn(tl.max(tl.abs(number), 0), LARGEST)
        whole = tl.div_rn(number, tl.where(scale > 0, scale, 1.0))
        whole = (whole + NEAREST) - NEAREST
        tl.store(slots + to * width + column, whole.to(tl.int8), mask=inside)
        tl.store(scales + to, scale, mask=place >= 0)


SOURCE = KernelSource(
    name="commit_int8",
    function=commit_int8,
    signature={"table": "*i64", "lanes": "i32", "width": "i32"},
    constants={
        "COLUMNS": COLUMNS,
        "WIDEST": WIDEST,
        "LARGEST": float(LARGEST),
        "NEAREST": NEAREST,
    },
    grid=("length", "lanes", "layers"),
    warps=1,
)
