"""Ways to damage bytes and values, each drawn from a generator of random numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Random = np.random.Generator
NUMBERS: tuple[Any, ...] = (
    *(-1, 0, 1, 2, 255, 2**31 - 1, 2**31, 2**40, 2**63, 2**64, 2**70, 10**9),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf")),
)
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *(None, True, False, "", "x", "x" * 5000, "a\0b", "../../etc/passwd", "\ud800", "\u202e", "１"),
    *(
        "{{ 1/0 }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "<image>",
        "data:image/png;base64,A",
    ),
    *([], {}, [[]], [None], [1, "a"], {"": 0}, {"a": {"b": [None]}}, [[[[[[1]]]]]]),
)
"""What stands where something else belongs, all of it possible in JSON."""


def one_of(rng: Random, values: Any) -> Any:
    """One of a sequence, as it is: numpy's own choice would make an array of it."""
    return values[int(rng.integers(len(values)))]


def damage_bytes(rng: Random, content: bytes, most: int | None = None) -> tuple[str, bytes]:
    """How, and the damaged bytes; most: where the damage begins at the latest."""
    return one_of(rng, BYTES)(rng, content, min(len(content), most or len(content)))


def _flip(rng: Random, content: bytes, most: int) -> tuple[str, bytes]:
    damaged = bytearray(content)
    places = sorted(rng.integers(0, most, int(rng.integers(1, 9))).tolist()) if most else []
    for place in places:
        damaged[place] ^= 1 << int(rng.integers(8))
    return f"bits flipped at {places}", bytes(damaged)


def _overwrite(rng: Random, content: bytes, most: int) -> tuple[str, bytes]:
    start, length = int(rng.integers(most + 1)), int(rng.integers(1, 65))
    filling = one_of(rng, (b"\0" * length, b"\xff" * length, rng.bytes(length)))
    return f"{length} bytes overwritten at {start}", (
        content[:start] + filling[: len(content) - start] + content[start + length :]
    )


def _cut(rng: Random, content: bytes, most: int) -> tuple[str, bytes]:
    length = int(rng.integers(most + 1))
    return f"cut to {length} bytes", content[:length]


def _remove(rng: Random, content: bytes, most: int) -> tuple[str, bytes]:
    start, length = int(rng.integers(most + 1)), int(rng.integers(1, 257))
    return f"{length} bytes removed at {start}", content[:start] + content[start + length :]


def _insert(rng: Random, content: bytes, most: int) -> tuple[str, bytes]:
    start = int(rng.integers(most + 1))
    filling = one_of(rng, (rng.bytes(16), b"\xff\xfe\xc0", b"\0" * 64, b"[" * 100_000, b"9" * 5000))
    return f"{filling[:4]!r}… inserted at {start}", content[:start] + filling + content[start:]


def _repeat(rng: Random, content: bytes, most: int) -> tuple[str, bytes]:
    start, length = int(rng.integers(most + 1)), int(rng.integers(1, 2049))
    return f"{length} bytes repeated at {start}", (
        content[: start + length] + content[start : start + length] + content[start + length :]
    )


def _replace(rng: Random, content: bytes, most: int) -> tuple[str, bytes]:
    other = one_of(
        rng, (b"", b"{}", b"[]", b"null", b"\xef\xbb\xbf{}", rng.bytes(300), b"[" * 10**5)
    )
    return f"replaced by {other[:8]!r}", other


BYTES: tuple[Callable[[Random, bytes, int], tuple[str, bytes]], ...] = (
    _flip, _flip, _overwrite, _cut, _remove, _insert, _repeat, _replace,
)  # fmt: skip


def damage_value(rng: Random, value: Any) -> tuple[str, Any]:
    """How, and a copy of a value of JSON in which one place is damaged."""
    damaged = copy.deepcopy(value)
    places = list(_places(damaged))
    if not places:
        return "replaced whole", one_of(rng, VALUES)
    container, key = one_of(rng, places)
    way = int(rng.integers(8))
    if way == 0:
        del container[key]
        return f"{key!r} removed", damaged
    if way == 1 and isinstance(container, dict):
        container[one_of(rng, ("", "zap", "é", "a\0b", f"{key}x"))] = one_of(rng, VALUES)
        return f"a key added beside {key!r}", damaged
    new = one_of(rng, NUMBERS if way == 2 else VALUES)
    container[key] = copy.deepcopy(new)
    return f"{key!r} is {repr(new)[:30]}", damaged


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container with each of its keys; of long lists the ends."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, list):
        keys = [*range(min(4, len(value))), *range(max(4, len(value) - 2), len(value))]
    else:
        return
    for key in keys[:400]:
        yield value, key
        yield from _places(value[key])
