"""The commit kernel in Triton's interpreter beside its reference, one case after another.

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

from tightrope.plugins.commit import LayerRow
from tightrope.plugins.commit.kernel import BLOCK, COLUMNS, commit
from tightrope.plugins.commit.reference import commit as expected

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
    commit[grid](torch.tensor(table), rows * heads, words, COLUMNS=COLUMNS, BLOCK=BLOCK)
    pairs = zip(slots, wanted, strict=True)
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


if __name__ == "__main__":
    json.dump([case(*each) for each in CASES], sys.stdout)
