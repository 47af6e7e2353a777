"""`likeliest` in Triton: a program for each block of each row.

It takes the largest out COUNT times: a block is in registers and COUNT is small.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tightrope.plugins.kernels.source import KernelSource
from tightrope.plugins.likeliest import BLOCK, COUNT, RUN


@triton.jit  # type: ignore[untyped-decorator]
def likeliest(  # type: ignore[no-untyped-def]
    logits,
    values,
    tokens,
    vocabulary,
    blocks,
    BLOCK: tl.constexpr,
    RUN: tl.constexpr,
    COUNT: tl.constexpr,
):
    """logits: float32 [N,vocabulary]. values, tokens: [N,blocks,COUNT], as the reference has it."""
    block, row = tl.program_id(0), tl.program_id(1)
    place = tl.arange(0, BLOCK)
    token = (place // RUN * blocks + block) * RUN + place % RUN
    known = token < vocabulary
    value = tl.load(logits + row * vocabulary + token, mask=known, other=-float("inf"))
    value = tl.where(value != value, float("inf"), value)
    out = (row * blocks + block) * COUNT
    for turn in range(COUNT):
        largest = tl.max(value, 0)
        first = tl.min(tl.where(value == largest, token, BLOCK * blocks), 0)
        tl.store(values + out + turn, largest)
        tl.store(tokens + out + turn, first)
        value = tl.where(token == first, -float("inf"), value)


SOURCE = KernelSource(
    name="likeliest",
    function=likeliest,
    signature={
        "logits": "*fp32",
        "values": "*fp32",
        "tokens": "*i32",
        "vocabulary": "i32",
        "blocks": "i32",
    },
    constants={"BLOCK": BLOCK, "RUN": RUN, "COUNT": COUNT},
    grid=("blocks", "rows", "1"),
    warps=4,
)
