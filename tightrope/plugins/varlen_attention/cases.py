"""Calls of `VarlenAttention` that a face may get wrong."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from tightrope.plugins.cases import LARGEST, SMALLEST, Case, halves

_HEADS = 3


def cases(head_dim: int) -> Iterator[Case]:
    """Each with a name of its own."""
    case = functools.partial(_case, head_dim)
    yield case("one segment", (0, 21))
    yield case("segments of any length", (0, 5, 6, 22, 30))
    yield case("segments that are empty", (0, 0, 9, 9, 9, 14, 14))
    yield case("a token for each segment", tuple(range(8)))
    yield case("segments of a block and of one more", (0, 64, 129))
    yield case("short segments, which is known", (0, 4, 8, 11, 12), longest=4)
    largest, smallest = (128.0, 256.0, float(LARGEST)), (float(SMALLEST),) * 3
    yield case("float16's largest values", (0, 7, 12), sizes=largest)
    yield case("float16's smallest numbers", (0, 7, 12), sizes=smallest)


def _case(
    head_dim: int,
    name: str,
    bounds: Sequence[int],
    *,
    longest: int = 0,
    sizes: tuple[float, ...] = (),
) -> Case:
    """sizes: of every number of query, key and value, whose logits no float16 may hold."""
    shape = (3, 1, _HEADS, bounds[-1], head_dim)
    drawn = halves(np.random.default_rng(bounds[-1]).normal(size=shape))
    if sizes:
        drawn = np.sign(drawn) * np.array(sizes, np.float32)[:, None, None, None, None]
    query, key, values = drawn
    return Case(
        name=name,
        inputs=(query, key, values, np.array(bounds, np.int32)),
        attributes={"scale": head_dim**-0.5, "longest": longest},
    )
