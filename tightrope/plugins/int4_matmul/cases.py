"""Calls of `Int4MatMul` that a face may get wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tightrope.plugins.cases import LARGEST, SMALLEST, Case, halves


def cases(_: int) -> Iterator[Case]:
    """Each with a name of its own; x is [1,rows,K]."""
    yield _case("one row", 1, 3, 48)
    yield _case("rows that are no whole tile", 19, 2, 80)
    yield _case("many rows", 65, 2, 32)
    yield _case("blocks of 128", 3, 2, 48, block_size=128)
    yield _case("a shift", 4, 3, 48, shift=True)
    yield _case("codes at both ends", 2, 2, 16, codes=(-8, 7))
    yield _case("float16's smallest scales", 2, 2, 16, scale=float(SMALLEST))
    yield _loud(_case("float16's largest inputs", 2, 1, 16, scale=2.0**-24))


def _case(
    name: str,
    rows: int,
    blocks: int,
    columns: int,
    *,
    block_size: int = 32,
    codes: tuple[int, int] | None = None,
    scale: float = 0.0,
    shift: bool = False,
) -> Case:
    rng, inputs = np.random.default_rng(rows * columns), blocks * block_size
    given = halves(rng.normal(size=(1, rows, inputs)))
    weight = rng.integers(-8, 8, (inputs, columns)).astype(np.int8)
    if codes is not None:
        weight = rng.choice(np.array(codes, np.int8), weight.shape)
    each = halves(rng.uniform(1e-3, 2e-2, (blocks, columns)))
    if scale:
        each[:] = scale
    added = halves(rng.normal(scale=0.05, size=each.shape)) if shift else None
    return Case(
        name=name,
        inputs=(given, weight, each, None, added, None),
        attributes={"block_size": block_size},
    )


def _loud(case: Case) -> Case:
    """Every input at the end of the range."""
    x, *others = case.inputs
    assert x is not None
    return replace(case, inputs=(np.sign(x) * LARGEST, *others))
