"""Slots: graphs read them, only a commit writes, and they never hold more than they may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.budget import OperatingPoint
from tightrope.interface import Dims
from tightrope.runtime.backends.backend import Call, Cancel
from tightrope.runtime.model import Model
from tightrope.runtime.settings import resolve
from tightrope.runtime.slots import SMALLEST_CAPACITY, Slots, Update

LAYERS, HEADS, WIDTH = 3, 2, 4
DIMS = Dims(
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=HEADS,
    head_dim=WIDTH,
    hidden_size=16,
    vocab_size=32,
)
Counts = npt.NDArray[np.int64]


def counts(*values: int) -> Counts:
    """[L] from one value for all layers, or one each."""
    return np.array(values * LAYERS if len(values) == 1 else values, np.int64)


def update(slots: Slots, target: npt.NDArray[np.int32], seed: int = 0) -> Update:
    """Random rows for `target` [L,N,Hkv,S] that every token of the call is counted in."""
    rng = np.random.default_rng(seed)
    key, value = rng.normal(size=(2, *target.shape, WIDTH)).astype(np.float32)
    next_score = rng.random(slots.score.shape).astype(np.float32)
    next_position = rng.integers(-1, 99, slots.position.shape).astype(np.int32)
    shape = (LAYERS, slots.rows)
    return Update(
        key=key,
        value=value,
        target=target,
        next_score=next_score,
        next_position=next_position,
        num_valid=np.full(shape, target.shape[-1], np.int64),
    )


def filled(rows: int = 1, tokens: int = 40, seed: int = 1) -> Slots:
    """Slots that hold `tokens` tokens in the first places."""
    slots = Slots(DIMS, rows)
    budget = counts(tokens)
    slots.make_room(budget, budget)
    target = np.tile(np.arange(tokens, dtype=np.int32), (LAYERS, rows, HEADS, 1))
    new = update(slots, target, seed)
    for position in new.next_position:
        position[:] = -1
        position[:, :, :tokens] = np.random.default_rng(seed).permutation(tokens)
    slots.commit(new, budget)
    return slots


def everything(slots: Slots) -> list[bytes]:
    return [view.tobytes() for views in _parts(slots) for view in views]


@pytest.mark.parametrize("length", [1, 9])
@pytest.mark.parametrize("kv_budget", [None, 30])
def test_a_graph_that_ran_has_changed_no_slot(
    length: int, kv_budget: int | None, loaded: Callable[[str], Model]
) -> None:
    model = loaded("llama")
    backend, dims = model.backend, model.bundle.manifest.dims
    policy = None if kv_budget is None else "tova"
    chosen = resolve(OperatingPoint(policy=policy, kv_budget=kv_budget), model.bundle.manifest)
    slots = backend.make_slots(2)
    rng = np.random.default_rng(0)

    def call(start: int, tokens: int) -> Call:
        place = np.tile(np.arange(start, start + tokens), (2, 1))
        embeds = rng.normal(size=(2, tokens, dims.hidden_size)).astype(np.float32)
        positions = (place.astype(np.int32), place.astype(np.int64))
        return Call(embeds, *positions, chosen.budget, chosen.policy)

    def run(this: Call, tokens: int) -> Update:
        slots.make_room(counts(tokens), chosen.budget)
        if tokens == 1:
            return backend.decode(slots, this)[1]
        return backend.prefill(slots, this, Cancel())[1]

    slots.commit(run(call(0, 40), 40), chosen.budget)
    for step in range(3):
        this = call(40 + step * length, length)
        slots.make_room(counts(length), chosen.budget)
        before = everything(slots)
        new = run(this, length)
        assert everything(slots) == before
        slots.commit(new, chosen.budget)
        assert everything(slots) != before


def test_a_target_of_minus_one_goes_nowhere() -> None:
    slots = filled(rows=2)
    keys = [key.copy() for key in slots.key]
    target = np.full((LAYERS, 2, HEADS, 3), -1, np.int32)
    target[1, 0, 1, 2] = 7
    new = update(slots, target)
    slots.commit(new, counts(64))
    for layer, key in enumerate(slots.key):
        changed = np.argwhere((key != keys[layer]).any(-1))
        assert changed.tolist() == ([[0, 1, 7]] if layer == 1 else [])
    np.testing.assert_array_equal(slots.key[1][0, 1, 7], new.key[1][0, 1, 2])
    np.testing.assert_array_equal(slots.value[1][0, 1, 7], new.value[1][0, 1, 2])


def test_layers_that_saw_different_numbers_of_tokens_commit_alike() -> None:
    together, apart = filled(), filled()
    target = np.arange(40, 43, dtype=np.int32) * np.ones((LAYERS, 1, HEADS, 1), np.int32)
    new = update(together, target)
    together.commit(new, counts(64))
    lists: dict[str, Any] = {
        name: [part[layer] for layer in range(LAYERS)]
        for name, part in (("key", new.key), ("value", new.value), ("target", new.target))
    }
    rest = {name: getattr(new, name) for name in ("next_score", "next_position", "num_valid")}
    apart.commit(Update(**lists, **rest), counts(64))
    assert everything(together) == everything(apart)
    np.testing.assert_array_equal(together.occupied, apart.occupied)


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=12),
    st.lists(st.integers(1, 900), min_size=LAYERS, max_size=LAYERS),
)
@settings(max_examples=60, deadline=None)
def test_capacity_grows_by_a_quarter_and_never_past_the_budget(
    calls: list[int], budgets: list[int]
) -> None:
    slots, budget = Slots(DIMS, 1), counts(*budgets)
    seen = np.zeros(LAYERS, np.int64)
    for tokens in calls:
        before = slots.capacity.copy()
        slots.make_room(counts(tokens), budget)
        seen = np.minimum(seen + tokens, budget)
        slots.occupied[:] = seen[:, None, None]
        assert (slots.capacity >= seen).all()
        for now, then, limit in zip(slots.capacity, before, budget, strict=True):
            assert now in (then, limit) or now % SMALLEST_CAPACITY == 0
            assert now <= max(then, min(limit, 1.25 * max(seen) + SMALLEST_CAPACITY))
            assert now <= max(limit, SMALLEST_CAPACITY)
        for layer in range(LAYERS):
            assert slots.key[layer].shape == (1, HEADS, slots.capacity[layer], WIDTH)


def test_growing_keeps_what_is_there_and_adds_empty_slots() -> None:
    slots = filled(rows=2)
    old = [part[1].copy() for part in _parts(slots)]
    version, capacity = slots.version, int(slots.capacity[1])
    slots.make_room(counts(0, 90, 0), counts(500))
    assert slots.version != version
    assert slots.capacity.tolist() == [64, 192, 64]
    for part, before, blank in zip(_parts(slots), old, (0, 0, 0, -1), strict=True):
        np.testing.assert_array_equal(part[1][:, :, :capacity], before)
        assert (part[1][:, :, capacity:] == blank).all()


def test_bytes_follow_the_capacity() -> None:
    slots = Slots(DIMS, 2)
    assert slots.nbytes == 2 * LAYERS * 2 * HEADS * SMALLEST_CAPACITY * WIDTH * 4
    slots.make_room(counts(0, 200, 0), counts(200))
    assert slots.nbytes == 2 * (64 + 200 + 64) * 2 * HEADS * WIDTH * 4


def test_a_fork_shares_nothing_with_what_it_came_from() -> None:
    slots = filled()
    copy = slots.fork(3)
    assert copy.rows == 3
    assert (copy.occupied == 40).all()
    for mine, theirs in ((copy.key, slots.key), (copy.position, slots.position)):
        for row in range(3):
            np.testing.assert_array_equal(mine[1][row], theirs[1][0])
    before = everything(slots)
    target = np.full((LAYERS, 3, HEADS, 1), 40, np.int32)
    target[:, 1] = -1
    copy.commit(update(copy, target), counts(64))
    copy.key[0][:] = 5
    assert everything(slots) == before


@given(st.integers(0, 10**6), st.integers(1, 39), st.integers(0, 6), st.integers(1, 6))
@settings(max_examples=80, deadline=None)
def test_trimming_keeps_the_best_and_the_protected(
    seed: int, budget: int, sinks: int, recent: int
) -> None:
    budget = max(budget, sinks + recent + 1)
    slots = filled(seed=seed)
    old = [[part[layer].copy() for layer in range(LAYERS)] for part in _parts(slots)]
    slots.trim(counts(budget), sinks, recent)
    assert (slots.occupied == budget).all()
    assert (slots.capacity <= max(budget, SMALLEST_CAPACITY)).all()
    for layer in range(LAYERS):
        for head in range(HEADS):
            key, value, score, position = (part[layer][0, head] for part in old)
            safe = (position < sinks) | (position > 39 - recent)
            worth = np.where(safe, np.inf, score)[:40]
            ranked = np.argsort(worth, kind="stable").tolist()
            best = sorted(ranked[-budget:])
            for part, before in zip(_parts(slots), (key, value, score, position), strict=True):
                np.testing.assert_array_equal(part[layer][0, head][:budget], before[best])
            assert (slots.position[layer][0, head][budget:] == -1).all()


def _parts(slots: Slots) -> tuple[Any, ...]:
    return slots.key, slots.value, slots.score, slots.position


def test_trimming_to_what_is_held_changes_nothing() -> None:
    slots = filled()
    before, version = everything(slots), slots.version
    slots.trim(counts(40), 4, 16)
    assert everything(slots) == before and slots.version == version


def test_only_the_layers_above_their_budget_are_trimmed() -> None:
    slots = filled()
    kept = slots.position[0][:, :, :40].copy()
    slots.trim(counts(40, 20, 64), 2, 3)
    assert slots.occupied[:, 0, 0].tolist() == [40, 20, 40]
    np.testing.assert_array_equal(slots.position[0][:, :, :40], kept)


def test_4096_tokens_stay_exactly_inside_a_budget_of_64(loaded: Callable[[str], Model]) -> None:
    model = loaded("llama")
    dims = model.bundle.manifest.dims
    point = OperatingPoint(policy="h2o", kv_budget=64)
    slot_bytes = 2 * dims.num_hidden_layers * dims.num_key_value_heads * dims.head_dim * 4
    answer = model.generate(
        list(range(5, 105)), max_tokens=4096, ignore_eos=True, point=point, temperature=1.0
    )
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == 4096
    assert answer.usage.occupied_slots == 64
    assert answer.usage.slot_bytes == 64 * slot_bytes


def test_each_layer_has_the_capacity_of_its_own_budget(loaded: Callable[[str], Model]) -> None:
    model = loaded("llama")
    dims = model.bundle.manifest.dims
    point = OperatingPoint(policy="snapkv", kv_budget=(300, 100, 80))
    answer = model.generate(list(range(5, 255)) * 3, max_tokens=3, ignore_eos=True, point=point)
    width = 2 * dims.num_key_value_heads * dims.head_dim * 4
    assert answer.usage.slot_bytes == (300 + 100 + 80) * width
    assert answer.usage.occupied_slots == 300
