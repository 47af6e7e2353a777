"""Calls of `SelectTokens` that a face may get wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tightrope.arrays import Array
from tightrope.plugins.cases import LARGEST, SMALLEST, Case


def cases(_: int) -> Iterator[Case]:
    """Each with a name of its own."""
    yield _case("drawn", 30, 12, 5)
    yield _case("all are kept", 20, 8, 8)
    yield _case("one is kept", 20, 8, 1)
    yield _case("a token is its own candidate", 1, 1, 1)
    yield _case("every token is a candidate", 65, 65, 32)
    yield _case("576 candidates", 600, 576, 144)
    yield _case("scores that are equal", 40, 30, 11, levels=1)
    yield _case("few different scores", 40, 30, 11, levels=3)
    yield _case("zeros of either sign", 24, 16, 7, values=(-0.0, 0.0))
    yield _case("float16's largest scores", 24, 16, 7, values=(-LARGEST, LARGEST))
    yield _case("float16's smallest scores", 24, 16, 7, values=(-SMALLEST, 0.0, SMALLEST))


def _case(
    name: str,
    length: int,
    candidates: int,
    keep: int,
    *,
    levels: int = 1 << 20,
    values: tuple[float, ...] = (),
) -> Case:
    rng, rows = np.random.default_rng(length + keep), 2
    drawn = rng.integers(0, levels, (rows, length))
    score: Array = (drawn - levels // 2).astype(np.float32)
    if values:
        score = rng.choice(np.array(values, np.float32), (rows, length))
    places = np.stack([np.sort(rng.permutation(length)[:candidates]) for _ in range(rows)])
    return Case(name=name, inputs=(score, places, np.arange(keep)))
