"""The commit kernels in Triton's interpreter beside their references, one case after another.

    TRITON_INTERPRET=1 python interpreted.py

prints as JSON for each case whether both leave the same in the slots. A process of its own, because
what Triton makes of a kernel is decided when its file is imported.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tightrope.plugins.commit import Int8Row, LayerRow
from tightrope.plugins.commit.kernel import SOURCE, commit
from tightrope.plugins.commit.kernel_int8 import SOURCE as INT8
from tightrope.plugins.commit.kernel_int8 import commit_int8
from tightrope.plugins.commit.reference import commit as expected
from tightrope.plugins.commit.reference import commit_int8 as expected_int8

CASES = [
    # capacities and lengths by layer, rows, heads, width, element type
    ((64, 64, 64), (1, 1, 1), 1, 2, 64, np.float16),
    ((63, 65), (5, 5), 2, 3, 80, np.float16),
    ((64, 128), (33, 7), 1, 1, 128, np.float16),
    ((1, 7), (1, 1), 4, 2, 96, np.float32),
    ((70, 9), (0, 9), 1, 2, 6, np.float16),
]


def case(
    capacities: Sequence[int], lengths: Sequence[int], rows: int, heads: int, width: int, kind: Any
) -> bool:
    """Random rows go to distinct random places, some nowhere; what lies between stays."""
    rng = np.random.default_rng(len(capacities) + width)
    table, slots, wanted = [], [], []
    held: list[Any] = []  # the table has addresses alone
    for capacity, length in zip(capacities, lengths, strict=True):
        lanes = (rows, heads)
        new = rng.normal(size=(2, *lanes, length, width)).astype(kind)
        target = np.full((*lanes, length), -1, np.int32)
        for lane in itertools.product(range(rows), range(heads)):
            places = rng.permutation(capacity)[:length]
            target[lane][: len(places)] = np.where(rng.random(len(places)) < 0.8, places, -1)
        before = rng.normal(size=(2, *lanes, capacity, width)).astype(kind)
        after = before.copy()
        for layer, rows_of in zip(after, new, strict=True):
            expected(layer, rows_of, target)
        tensors = [torch.from_numpy(each) for each in (*before, *new, target)]
        held += tensors
        addresses = [each.data_ptr() for each in tensors]
        table.append(LayerRow._make((*addresses, capacity, length)))
        slots.append(before)
        wanted.append(after)
    words = width * np.dtype(kind).itemsize // 4
    grid = (max(lengths), rows * heads, len(table))
    commit[grid](torch.tensor(table), rows * heads, words, **SOURCE.constants)
    pairs = zip(slots, wanted, strict=True)
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


INT8_CASES = [
    # capacities and lengths by layer, rows, heads, width, what is done to the rows
    ((64, 64), (1, 1), 1, 2, 64, "drawn"),
    ((63, 65), (5, 3), 2, 3, 80, "drawn"),
    ((70, 9), (0, 9), 1, 2, 16, "drawn"),
    ((16,), (4,), 1, 1, 256, "halves"),
    ((16,), (4,), 1, 2, 32, "zeros"),
    ((16,), (4,), 1, 2, 32, "largest"),
    ((16,), (4,), 1, 2, 32, "smallest"),
]


def rows_of(kind: str, shape: tuple[int, ...]) -> Any:
    """Drawn rows, or such as lie at the ends of float16 or halfway between two whole numbers."""
    rng, half = np.random.default_rng(shape[-1]), np.finfo(np.float16)
    rows: Any = rng.normal(size=shape)
    if kind == "halves":
        rows = rng.integers(-127, 127, shape) + 0.5
        rows[..., 0] = 127
    if kind == "zeros":
        rows[..., :2, :] = 0
    if kind == "largest":
        rows = np.sign(rows) * float(half.max)
    if kind == "smallest":
        rows = np.rint(4 * rows) * float(half.smallest_subnormal)
    return rows.astype(np.float16)


def int8_case(
    capacities: Sequence[int], lengths: Sequence[int], rows: int, heads: int, width: int, kind: str
) -> bool:
    """The same for slots in int8: whole numbers and scales are those of the reference."""
    rng = np.random.default_rng(len(capacities) + width)
    table = []
    held: list[Any] = []
    pairs: list[Any] = []
    for capacity, length in zip(capacities, lengths, strict=True):
        lanes = (rows, heads)
        new = rows_of(kind, (2, *lanes, length, width))
        places = np.stack([rng.permutation(capacity)[:length] for _ in range(rows * heads)])
        chosen = np.where(rng.random(places.shape) < 0.8, places, -1)
        target = chosen.astype(np.int32).reshape(*lanes, length)
        codes = rng.integers(-127, 128, (2, *lanes, capacity, width)).astype(np.int8)
        scales = rng.random((2, *lanes, capacity, 1)).astype(np.float32)
        after = codes.copy(), scales.copy()
        for part, rows_new in enumerate(new):
            expected_int8((after[0][part], after[1][part]), rows_new, target)
        tensors = [torch.from_numpy(each) for each in (*codes, *scales, *new, target)]
        held += tensors
        table.append(Int8Row._make((*[each.data_ptr() for each in tensors], capacity, length)))
        pairs += zip((codes, scales), after, strict=True)
    grid = (max(lengths), rows * heads, len(table))
    commit_int8[grid](torch.tensor(table), rows * heads, width, **INT8.constants)
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


if __name__ == "__main__":
    told = [*(case(*each) for each in CASES), *(int8_case(*each) for each in INT8_CASES)]
    json.dump(told, sys.stdout)
