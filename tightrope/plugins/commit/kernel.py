"""`commit` in Triton: a program for each new token of a row, head and layer.

Rows are copied as words of four bytes, whatever they hold: one kernel serves every element type.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tightrope.plugins.commit import LayerRow
from tightrope.plugins.kernels.source import KernelSource

COLUMNS = len(LayerRow._fields)
BLOCK = 64
"""Words a turn: a row of 128 halves."""


@triton.jit  # type: ignore[untyped-decorator]
def commit(table, lanes, words, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """table: int64 [L,COLUMNS]. lanes: rows times heads. words: of one token's key, and value."""
    token, lane, layer = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = table + layer * COLUMNS
    slot_key = tl.load(row).to(tl.pointer_type(tl.int32))
    slot_value = tl.load(row + 1).to(tl.pointer_type(tl.int32))
    key = tl.load(row + 2).to(tl.pointer_type(tl.int32))
    value = tl.load(row + 3).to(tl.pointer_type(tl.int32))
    target = tl.load(row + 4).to(tl.pointer_type(tl.int32))
    capacity, length = tl.load(row + 5), tl.load(row + 6)
    # Layers may differ in length; the grid has the longest.
    place = tl.load(target + lane * length + token, mask=token < length, other=-1)
    source, to = (lane * length + token) * words, (lane * capacity + place) * words
    for start in range(0, words, BLOCK):
        word = start + tl.arange(0, BLOCK)
        moves = (word < words) & (place >= 0)
        tl.store(slot_key + to + word, tl.load(key + source + word, mask=moves), mask=moves)
        tl.store(slot_value + to + word, tl.load(value + source + word, mask=moves), mask=moves)


SOURCE = KernelSource(
    name="commit",
    function=commit,
    signature={"table": "*i64", "lanes": "i32", "words": "i32"},
    constants={"COLUMNS": COLUMNS, "BLOCK": BLOCK},
    grid=("length", "lanes", "layers"),
    warps=1,
)
