"""Calls of `SlotAttention` that a face may get wrong."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tightrope.arrays import Array
from tightrope.plugins.cases import LARGEST, SMALLEST, Case, halves
from tightrope.plugins.commit.reference import to_int8
from tightrope.plugins.slot_attention.policies import POLICIES
from tightrope.plugins.slot_attention.schema import SCHEMA

_HEADS, _KV_HEADS = 4, 2
_SINKS, _RECENT = 2, 3


def cases(head_dim: int) -> Iterator[Case]:
    """Each with a name of its own; those of one token are such as a step may meet."""
    call = functools.partial(_call, head_dim)
    for policy in POLICIES:
        yield _case(f"drawn, {policy}", call(1, 7, 20, policy))
        yield _case(f"one token, {policy}", call(2, 1, 14, policy, budget=14))
    yield _case("one slot", call(3, 1, 0))
    yield _case("no slots", _cut(call(4, 9, 0, capacity=12), 0))
    yield _case("slots that are all empty", call(5, 1, 0, capacity=65))
    yield _case("a slot more than a block", call(6, 1, 65, capacity=66, budget=66))
    yield _case("the budget is what is occupied", call(7, 6, 20, budget=20))
    yield _case("the budget is all there is", call(8, 6, 20, capacity=26, budget=26))
    yield _case("heads with budgets apart", _uneven(call(9, 6, 12, budget=18)))
    yield _case("rows of padding", _padded(call(10, 5, 12, rows=3)))
    yield _case("scores that are equal", _tied(call(11, 5, 16, "knorm", budget=16)))
    yield _case("a step among equal scores", _tied(call(12, 1, 16, "knorm", budget=16)))
    yield _case("keys and values handed over in part", _cut(call(13, 4, 9, capacity=24), 9))
    yield _case("a window", call(14, 6, 20), {"window": 5})
    yield _case("a soft cap", call(15, 6, 20), {"softcap": 3.0})
    yield _case("images that see themselves whole", _reaching(call(16, 6, 12)))
    yield _case("float16's largest values", _extreme(call(17, 4, 12)))
    yield _case("float16's smallest numbers", _tiny(call(18, 4, 12)))
    for policy in ("h2o", "knorm"):
        yield _case(f"int8, {policy}", in_int8(call(19, 7, 20, policy)))
        yield _case(f"int8, one token, {policy}", in_int8(call(20, 1, 14, policy, budget=14)))
    yield _case("int8, no slots", in_int8(_cut(call(21, 9, 0, capacity=12), 0)))
    yield _case("int8, slots that are all empty", in_int8(call(22, 1, 0, capacity=65)))
    yield _case("int8, rows of padding", in_int8(_padded(call(23, 5, 12, rows=3))))
    yield _case("int8, handed over in part", in_int8(_cut(call(24, 4, 9, capacity=24), 9)))
    yield _case("int8, a window", in_int8(call(25, 1, 20)), {"window": 5})
    yield _case("int8, a soft cap", in_int8(call(26, 6, 20)), {"softcap": 3.0})
    yield _case("int8 of float16's largest values", in_int8(_extreme(call(27, 4, 12))))
    yield _case("int8 of float16's smallest numbers", in_int8(_tiny(call(28, 4, 12))))


def _case(name: str, call: dict[str, Array], attributes: dict[str, Any] | None = None) -> Case:
    scale = call["query"].shape[-1] ** -0.5
    given = {"scale": scale, "softcap": 0.0, "window": 0, "pool_kernel": 5, **(attributes or {})}
    inputs: tuple[Array | None, ...] = tuple(call.values())
    inputs += (None,) * (len(SCHEMA.inputs) - len(inputs))
    return Case(name=name, inputs=inputs, attributes=given)


def in_int8(call: dict[str, Array]) -> dict[str, Array]:
    """The same call on slots that hold what int8 keeps of theirs."""
    coded = {name: to_int8(call[name]) for name in ("old keys", "old values")}
    codes = {name: each[0] for name, each in coded.items()}
    return call | codes | {f"scales of {name}": each[1] for name, each in coded.items()}


def _call(
    head_dim: int,
    seed: int,
    length: int,
    occupied: int,
    policy: str = "h2o",
    *,
    rows: int = 2,
    capacity: int = 0,
    budget: int = 0,
) -> dict[str, Array]:
    """Inputs by name; slots hold older tokens, the first ones are occupied."""
    rng = np.random.default_rng(seed)
    budget = budget or occupied + length
    capacity = max(capacity, budget)
    lanes = (rows, _KV_HEADS)
    position = np.full((*lanes, capacity), -1, np.int32)
    for row, head in np.ndindex(lanes):
        position[row, head, :occupied] = rng.permutation(occupied + 9)[:occupied]
    taken = (position >= 0)[..., None]
    new = np.tile(np.arange(length) + occupied + 9, (rows, 1)).astype(np.int32)
    shape, slots = (*lanes, length, head_dim), (*lanes, capacity, head_dim)
    return {
        "query": halves(rng.normal(size=(rows, _HEADS, length, head_dim))),
        "key": halves(rng.normal(size=shape)),
        "value": halves(rng.normal(size=shape)),
        "old keys": halves(rng.normal(size=slots) * taken),
        "old values": halves(rng.normal(size=slots) * taken),
        "scores": (rng.random((*lanes, capacity)) * taken[..., 0]).astype(np.float32),
        "positions": position,
        "ordinals": new,
        "budget": np.array([budget, budget]),
        "policy": POLICIES[policy].vector(_SINKS, _RECENT),
        "reach": new.copy(),
    }


def _uneven(call: dict[str, Array]) -> dict[str, Array]:
    """The second head may hold less."""
    call["budget"][1] -= 4
    return call


def _padded(call: dict[str, Array]) -> dict[str, Array]:
    """The second row ends early, the third has no token at all."""
    for name in ("ordinals", "reach"):
        call[name][1, 2:] = -1
        call[name][2] = -1
    return call


def _tied(call: dict[str, Array]) -> dict[str, Array]:
    call["scores"][call["positions"] >= 0] = 0.5
    call["key"][:] = call["key"][:1, :1, :1]
    return call


def _cut(call: dict[str, Array], used: int) -> dict[str, Array]:
    return call | {name: call[name][:, :, :used] for name in ("old keys", "old values")}


def _reaching(call: dict[str, Array]) -> dict[str, Array]:
    call["reach"][:, 1:4] = call["ordinals"][:, 3:4]
    return call


def _extreme(call: dict[str, Array]) -> dict[str, Array]:
    """Values at the end of the range, and logits that no float16 holds, though float32 does."""
    sizes = {"value": LARGEST, "old values": LARGEST, "query": 128, "key": 256, "old keys": 256}
    for name, size in sizes.items():
        call[name] = np.sign(call[name]) * np.float32(size)
    return call


def _tiny(call: dict[str, Array]) -> dict[str, Array]:
    for name in ("query", "key", "value", "old keys", "old values"):
        call[name] = np.sign(call[name]) * SMALLEST
    return call
