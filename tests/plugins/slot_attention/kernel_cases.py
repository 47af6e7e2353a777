"""Calls of `SlotAttention` at odd sizes: widths of heads, groups, lengths and slots."""

from __future__ import annotations

from typing import Any

import numpy as np

from tightrope.plugins.cases import Case
from tightrope.plugins.commit.reference import to_int8
from tightrope.plugins.slot_attention.policies import POLICIES


def case(
    name: str,
    rows: int,
    heads: tuple[int, int],
    width: int,
    length: int,
    slots: tuple[int, int, int],
    *,
    policy: str = "h2o",
    surplus: int = 0,
    int8: bool = False,
    **attributes: Any,
) -> Case:
    """A drawn call.

    heads: of keys, and of queries to each. slots: occupied, given, capacity. surplus: how many have
    to leave. int8: of the slots.
    """
    (kv_heads, group), (held, given, capacity) = heads, slots
    rng = np.random.default_rng(width + length + sum(slots))
    lanes = (rows, kv_heads)

    def halves(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float16)

    position = np.full((*lanes, capacity), -1, np.int32)
    for row, head in np.ndindex(lanes):
        position[row, head, :held] = rng.permutation(held + 5)[:held]
    ordinals = np.tile(np.arange(length) + held + 5, (rows, 1)).astype(np.int32)
    old: list[tuple[Any, Any]] = [(halves(*lanes, given, width), None) for _ in range(2)]
    if int8:
        old = [to_int8(each) for each, _ in old]
    inputs = (
        halves(rows, kv_heads * group, length, width),
        halves(*lanes, length, width),
        halves(*lanes, length, width),
        old[0][0],
        old[1][0],
        rng.random((*lanes, capacity)).astype(np.float32) * (position >= 0),
        position,
        ordinals,
        np.full(kv_heads, held + length - surplus, np.int64),
        POLICIES[policy].vector(2, 3),
        ordinals,
        old[0][1],
        old[1][1],
    )
    numbers = {"scale": width**-0.5, "softcap": 0.0, "window": 0, "pool_kernel": 5, **attributes}
    return Case(name=name, inputs=inputs, attributes=numbers)


CASES = (
    case("one slot", 1, (1, 1), 64, 1, (1, 1, 1), surplus=1),
    case("63 slots, group 2", 2, (2, 2), 80, 1, (63, 63, 63), surplus=1, policy="tova"),
    case("64 slots, group 3", 1, (2, 3), 96, 1, (60, 64, 64), policy="snapkv"),
    case("65 slots, group 8", 1, (1, 8), 128, 1, (65, 65, 70), surplus=1),
    case("no slots given, group 7", 1, (1, 7), 16, 1, (0, 0, 5)),
    case("two splits, group 4", 1, (1, 4), 64, 1, (300, 320, 512), surplus=1, policy="knorm"),
    case("one token, window", 1, (1, 5), 256, 1, (40, 40, 64), window=7, policy="streaming"),
    case("one token, soft cap", 1, (1, 6), 64, 1, (40, 40, 64), softcap=3.0),
    case("5 tokens, 63 slots", 2, (2, 2), 80, 5, (60, 63, 63), surplus=3, policy="snapkv"),
    case("5 tokens, group 8", 1, (1, 8), 96, 5, (64, 64, 70), policy="tova"),
    case("70 tokens, window", 1, (1, 1), 128, 70, (65, 65, 99), surplus=36, window=30),
    case("int8, 65 slots, group 8", 1, (1, 8), 128, 1, (65, 65, 70), surplus=1, int8=True),
    case("int8, two splits", 1, (2, 3), 80, 1, (300, 320, 512), policy="tova", int8=True),
    case("int8, one token, 256 wide", 1, (1, 2), 256, 1, (40, 63, 64), window=7, int8=True),
    case("int8, 5 tokens, 63 slots", 2, (2, 2), 80, 5, (60, 63, 63), surplus=3, int8=True),
    case("int8, 70 tokens", 1, (1, 1), 128, 70, (65, 65, 99), surplus=36, softcap=3.0, int8=True),
    case("20 tokens, 256 wide", 1, (1, 2), 256, 20, (40, 40, 64)),
    case("512 tokens", 1, (1, 1), 64, 512, (65, 65, 300), surplus=277, policy="snapkv"),
)
