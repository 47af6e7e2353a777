"""Calls of `Int4MatMul` around the kernels' tiles, at every block size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tightrope.plugins.cases import Case, halves


def around_tiles() -> Iterator[Case]:
    for block_size in (32, 64, 128):
        for rows in (1, 15, 17, 65):
            for blocks, columns in ((1, 16), (5, 80)):
                yield drawn(rows, blocks, columns, block_size)
    yield drawn(70, 3, 144, 64, shift=True)


def drawn(rows: int, blocks: int, columns: int, block_size: int, shift: bool = False) -> Case:
    rng, inputs = np.random.default_rng(rows * columns), blocks * block_size
    each = halves(rng.uniform(1e-3, 2e-2, (blocks, columns)))
    added = halves(rng.normal(scale=0.05, size=each.shape)) if shift else None
    weight = rng.integers(-8, 8, (inputs, columns)).astype(np.int8)
    return Case(
        name=f"{rows} rows, {blocks} blocks of {block_size}, {columns} columns",
        inputs=(halves(rng.normal(size=(1, rows, inputs))), weight, each, None, added, None),
        attributes={"block_size": block_size},
    )


CASES = tuple(around_tiles())
