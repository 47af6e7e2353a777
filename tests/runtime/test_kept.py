"""What is kept within a bound in bytes, against a list that is searched from its start."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.runtime import kept
from tightrope.runtime.kept import SPARE_BYTES, Kept, make_way

KEYS, BOUND = st.integers(0, 6), 100


def of(most_bytes: int = BOUND) -> Kept[int, bytes]:
    return Kept(most_bytes, len)


@given(st.lists(st.tuples(st.sampled_from(("put", "get")), KEYS, st.integers(0, 130))))
def test_the_least_recently_used_go_until_the_rest_fits(steps: list[tuple[str, int, int]]) -> None:
    cache, expected = of(), list[tuple[int, bytes]]()
    for step, key, size in steps:
        found = next((entry for entry in expected if entry[0] == key), None)
        if step == "get":
            assert cache.get(key) == (None if found is None else found[1])
            if found is not None:
                expected = [entry for entry in expected if entry is not found] + [found]
        else:
            cache.put(key, bytes(size))
            if size <= BOUND:
                expected = [entry for entry in expected if entry is not found]
                expected.append((key, bytes(size)))
            while sum(len(value) for _, value in expected) > BOUND:
                del expected[0]
        assert list(cache) == [key for key, _ in expected]
        assert cache.nbytes == sum(len(value) for _, value in expected) <= BOUND


def test_what_is_larger_than_the_bound_drives_nothing_out() -> None:
    cache = of()
    cache.put(1, bytes(60))
    cache.put(2, bytes(BOUND + 1))
    assert list(cache) == [1]
    cache.put(3, bytes(BOUND))
    assert list(cache) == [3]


def test_nothing_is_kept_in_no_bytes() -> None:
    cache = of(0)
    cache.put(1, b"x")
    assert 1 not in cache and cache.nbytes == 0


def test_looking_whether_it_is_there_is_no_use_of_it() -> None:
    cache = of()
    for key in (1, 2):
        cache.put(key, bytes(50))
    assert 1 in cache
    cache.put(3, bytes(50))
    assert list(cache) == [2, 3]


def test_what_is_kept_goes_before_a_request_that_would_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = of(), of()
    for cache in (first, second):
        for key in range(3):
            cache.put(key, bytes(30))

    def available() -> dict[str, int]:
        return {"MemAvailable": SPARE_BYTES + 1000 - first.nbytes - second.nbytes}

    monkeypatch.setattr(kept, "read_meminfo", available)
    make_way(820, first, second)
    assert (list(first), list(second)) == ([0, 1, 2], [0, 1, 2])
    make_way(821, first, second)
    assert (list(first), list(second)) == ([1, 2], [0, 1, 2])
    make_way(940, first, second)
    assert (list(first), list(second)) == ([], [1, 2])
    make_way(10**9, first, second)
    assert (list(first), list(second)) == ([], [])


def test_everything_stays_where_the_machine_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = of()
    cache.put(1, b"x")
    monkeypatch.setattr(kept, "read_meminfo", dict)
    make_way(10**12, cache)
    assert 1 in cache
