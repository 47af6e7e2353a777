"""Slots: graphs read them, only a commit writes, and they never hold more than they may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.interface.calls import Call, Update
from tightrope.interface.tensors import Dims
from tightrope.point import OperatingPoint
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.model import Model
from tightrope.runtime.settings import resolve
from tightrope.runtime.slots import Slots
from tightrope.runtime.storage import SMALLEST_CAPACITY, NullStorage, NumpyStorage

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


def empty(rows: int) -> Slots:
    return Slots(DIMS, rows, lambda rows, capacity: NumpyStorage(DIMS, rows, capacity))


def counts(*values: int) -> Counts:
    """[L] from one value for all layers, or one each."""
    return np.array(values * LAYERS if len(values) == 1 else values, np.int64)


def heads(*values: int) -> Counts:
    """[L,Hkv], the same for all heads of a layer."""
    return np.repeat(counts(*values)[:, None], HEADS, 1)


def policy(sinks: int, recent: int) -> npt.NDArray[np.float32]:
    """[L,8]; only what it protects matters to a trim."""
    return np.tile(np.array([0, 0, 0, 0, 0, 0, sinks, recent], np.float32), (LAYERS, 1))


def update(slots: Slots, target: npt.NDArray[np.int32], seed: int = 0) -> Update:
    """Random rows for `target` [L,N,Hkv,S] that every token of the call is counted in."""
    rng = np.random.default_rng(seed)
    key, value = rng.normal(size=(2, *target.shape, WIDTH)).astype(np.float32)
    next_score = rng.random(slots.score.shape).astype(np.float32)
    next_position = rng.integers(-1, 99, slots.position.shape).astype(np.int32)
    return Update(key, value, target, next_score, next_position)


def filled(rows: int = 1, tokens: int = 40, seed: int = 1) -> Slots:
    """Slots that hold `tokens` tokens in the first places."""
    slots = empty(rows)
    budget = counts(tokens)
    slots.make_room(budget, budget)
    target = np.tile(np.arange(tokens, dtype=np.int32), (LAYERS, rows, HEADS, 1))
    new = update(slots, target, seed)
    for position in new.next_position:
        position[:] = -1
        position[:, :, :tokens] = np.random.default_rng(seed).permutation(tokens)
    slots.commit(new)
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
    slots = Slots(dims, 2, backend.make_storage)
    rng = np.random.default_rng(0)

    def call(start: int, tokens: int) -> Call:
        place = np.tile(np.arange(start, start + tokens), (2, 1))
        embeds = rng.normal(size=(2, tokens, dims.hidden_size)).astype(np.float32)
        positions = (place.astype(np.int32), place.astype(np.int64))
        return Call(embeds, *positions, chosen.kv_budget, chosen.policy)

    def run(this: Call, tokens: int) -> Update:
        slots.make_room(counts(tokens), chosen.kv_budget.max(1))
        if tokens == 1:
            return backend.decode(slots, this)[1]
        return backend.prefill(slots, this, Cancel())[1]

    slots.commit(run(call(0, 40), 40))
    for step in range(3):
        this = call(40 + step * length, length)
        slots.make_room(counts(length), chosen.kv_budget.max(1))
        before = everything(slots)
        new = run(this, length)
        assert everything(slots) == before
        slots.commit(new)
        assert everything(slots) != before


def test_a_target_of_minus_one_goes_nowhere() -> None:
    slots = filled(rows=2)
    keys = [key.copy() for key in slots.views().keys]
    target = np.full((LAYERS, 2, HEADS, 3), -1, np.int32)
    target[1, 0, 1, 2] = 7
    new = update(slots, target)
    slots.commit(new)
    for layer, key in enumerate(slots.views().keys):
        changed = np.argwhere((key != keys[layer]).any(-1))
        assert changed.tolist() == ([[0, 1, 7]] if layer == 1 else [])
    np.testing.assert_array_equal(slots.views().keys[1][0, 1, 7], new.key[1][0, 1, 2])
    np.testing.assert_array_equal(slots.views().values[1][0, 1, 7], new.value[1][0, 1, 2])


def test_layers_that_saw_different_numbers_of_tokens_commit_alike() -> None:
    together, apart = filled(), filled()
    target = np.arange(40, 43, dtype=np.int32) * np.ones((LAYERS, 1, HEADS, 1), np.int32)
    new = update(together, target)
    together.commit(new)
    lists: dict[str, Any] = {
        name: [part[layer] for layer in range(LAYERS)]
        for name, part in (("key", new.key), ("value", new.value), ("target", new.target))
    }
    rest = {name: getattr(new, name) for name in ("next_score", "next_position")}
    apart.commit(Update(**lists, **rest))
    assert everything(together) == everything(apart)
    np.testing.assert_array_equal(together.occupied, apart.occupied)


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=12),
    st.lists(st.integers(1, 900), min_size=LAYERS, max_size=LAYERS),
)
@settings(max_examples=60, deadline=None)
def test_capacity_grows_by_a_sixteenth_and_never_past_the_budget(
    calls: list[int], budgets: list[int]
) -> None:
    slots, budget = empty(1), counts(*budgets)
    seen = np.zeros(LAYERS, np.int64)
    for tokens in calls:
        before = slots.capacity.copy()
        slots.make_room(counts(tokens), budget)
        seen = np.minimum(seen + tokens, budget)
        slots.occupied[:] = seen[:, None, None]
        assert (slots.capacity >= seen).all()
        for now, then, limit in zip(slots.capacity, before, budget, strict=True):
            assert now in (then, limit) or now % SMALLEST_CAPACITY == 0
            assert now <= max(then, min(limit, 17 / 16 * max(seen) + SMALLEST_CAPACITY))
            assert now <= max(limit, SMALLEST_CAPACITY)
        for layer in range(LAYERS):
            assert slots.views().keys[layer].shape == (1, HEADS, slots.capacity[layer], WIDTH)


def test_growing_keeps_what_is_there_and_adds_empty_slots() -> None:
    slots = filled(rows=2)
    old = [part[1].copy() for part in _parts(slots)]
    storage, capacity = slots.storage, int(slots.capacity[1])
    slots.make_room(counts(0, 90, 0), counts(500))
    assert slots.storage is not storage
    assert slots.capacity.tolist() == [64, 192, 64]
    for part, before, blank in zip(_parts(slots), old, (0, 0, 0, -1), strict=True):
        np.testing.assert_array_equal(part[1][:, :, :capacity], before)
        assert (part[1][:, :, capacity:] == blank).all()


def test_bytes_follow_the_capacity() -> None:
    slots = empty(2)
    assert slots.nbytes == 2 * LAYERS * 2 * HEADS * SMALLEST_CAPACITY * WIDTH * 4
    slots.make_room(counts(0, 200, 0), counts(200))
    assert slots.nbytes == 2 * (64 + 200 + 64) * 2 * HEADS * WIDTH * 4


def test_a_fork_shares_nothing_with_what_it_came_from() -> None:
    slots = filled()
    copy = slots.fork(3)
    assert copy.rows == 3
    assert (copy.occupied == 40).all()
    for mine, theirs in ((copy.views().keys, slots.views().keys), (copy.position, slots.position)):
        for row in range(3):
            np.testing.assert_array_equal(mine[1][row], theirs[1][0])
    before = everything(slots)
    target = np.full((LAYERS, 3, HEADS, 1), 40, np.int32)
    target[:, 1] = -1
    copy.commit(update(copy, target))
    copy.views().keys[0][:] = 5
    assert everything(slots) == before


@given(st.integers(0, 10**6), st.integers(1, 39), st.integers(0, 6), st.integers(1, 6))
@settings(max_examples=80, deadline=None)
def test_trimming_keeps_the_best_and_the_protected(
    seed: int, budget: int, sinks: int, recent: int
) -> None:
    budget = max(budget, sinks + recent + 1)
    slots = filled(seed=seed)
    old = [[part[layer].copy() for layer in range(LAYERS)] for part in _parts(slots)]
    slots.trim(heads(budget), policy(sinks, recent))
    assert (slots.occupied == budget).all()
    slots.shrink(counts(budget))
    assert (slots.capacity == min(SMALLEST_CAPACITY, budget)).all()
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
    views = slots.views()
    return views.keys, views.values, views.score, views.position


def test_trimming_to_what_is_held_changes_nothing() -> None:
    slots = filled()
    before, storage = everything(slots), slots.storage
    slots.trim(heads(40), policy(4, 16))
    assert everything(slots) == before and slots.storage is storage


def test_only_the_layers_above_their_budget_are_trimmed() -> None:
    slots = filled()
    kept = slots.position[0][:, :, :40].copy()
    slots.trim(heads(40, 20, 64), policy(2, 3))
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


def test_each_head_may_hold_a_number_of_its_own() -> None:
    slots = filled()
    kv_budget = heads(40, 30, 40)
    kv_budget[1, 1] = 12
    best = np.argsort(slots.score[1][0, 1][:40], kind="stable")[-12:]
    kept = np.sort(slots.position[1][0, 1][np.sort(best)])
    slots.trim(kv_budget, policy(0, 1))
    assert slots.occupied[1, 0].tolist() == [30, 12]
    position = slots.position[1][0, 1]
    held = set(position[position >= 0].tolist())
    assert len(held) == 12 and len(held & set(kept.tolist())) >= 11  # the newest is protected
    assert (slots.views().keys[1][0, 1, 12:] == 0).all()


def test_occupancy_follows_the_targets_head_by_head() -> None:
    slots = filled()
    target = np.full((LAYERS, 1, HEADS, 2), -1, np.int32)
    target[0, 0, 0] = [40, 41]
    target[2, 0, 1] = [3, 40]
    slots.commit(update(slots, target))
    assert slots.occupied[:, 0].tolist() == [[42, 40], [40, 40], [40, 41]]


def test_a_rollback_cuts_off_what_came_since_the_mark() -> None:
    slots = filled()
    before, mark = everything(slots)[2 * LAYERS :], slots.mark()
    target = np.arange(40, 43, dtype=np.int32) * np.ones((LAYERS, 1, HEADS, 1), np.int32)
    new = update(slots, target)
    new.next_position[..., :40] = slots.position[..., :40]
    slots.commit(new)
    slots.make_room(counts(90), counts(500))
    slots.rollback(mark)
    assert (slots.occupied == 40).all()
    size = mark.position.shape[3]
    assert (slots.position[..., size:] == -1).all()
    now = [
        part[layer][..., :size].tobytes()
        for part in (slots.score, slots.position)
        for layer in range(LAYERS)
    ]
    assert now == before


def test_no_rollback_across_a_slot_that_was_given_up() -> None:
    slots = filled()
    mark = slots.mark()
    target = np.full((LAYERS, 1, HEADS, 1), 5, np.int32)
    new = update(slots, target)
    new.next_position[:] = slots.position
    new.next_position[..., 5] = 99
    slots.commit(new)
    with pytest.raises(ValueError, match="given up"):
        slots.rollback(mark)


def test_a_null_storage_keeps_the_books_without_keys() -> None:
    slots = Slots(DIMS, 1, lambda rows, capacity: NullStorage(DIMS, rows, capacity))
    slots.make_room(counts(100), counts(100))
    assert slots.nbytes == 0 and slots.capacity.tolist() == [100] * LAYERS
    target = np.arange(80, dtype=np.int32) * np.ones((LAYERS, 1, HEADS, 1), np.int32)
    new = update(slots, target)
    new.next_position[:] = -1
    new.next_position[..., :80] = np.arange(80)
    slots.commit(new)
    slots.trim(heads(20), policy(2, 5))
    assert (slots.occupied == 20).all()
    assert set(range(2)) | set(range(75, 80)) <= set(slots.position[0, 0, 0].tolist())
    assert slots.fork(3).position.shape == (LAYERS, 3, HEADS, 100)


def test_half_precision_storage_holds_rounded_rows() -> None:
    half = Slots(DIMS, 1, lambda rows, capacity: NumpyStorage(DIMS, rows, capacity, np.float16))
    whole = empty(1)
    target = np.arange(9, dtype=np.int32) * np.ones((LAYERS, 1, HEADS, 1), np.int32)
    for slots in (half, whole):
        slots.commit(update(slots, target))
    assert 2 * half.nbytes == whole.nbytes
    for ours, theirs in zip(half.views().keys, whole.views().keys, strict=True):
        np.testing.assert_array_equal(ours, theirs.astype(np.float16))


@pytest.mark.parametrize("kind", [NumpyStorage, NullStorage])
def test_states_go_with_commits_marks_forks_and_growth(kind: Any) -> None:
    dims = replace(DIMS, conv_layers=2, conv_inputs=2)
    slots = Slots(dims, 1, lambda rows, capacity: kind(dims, rows, capacity))
    states = np.random.default_rng(2).normal(size=(3, 2, 1, 16, 2)).astype(np.float32)

    def held() -> Any:
        return slots.views().conv_state

    assert held().shape == (2, 1, 16, 2) and not held().any()
    target = np.zeros((LAYERS, 1, HEADS, 1), np.int32)
    for number, state in enumerate(states):
        new = replace(update(slots, target + number), next_conv_state=state)
        new.next_position[:] = -1
        new.next_position[..., : number + 1] = np.arange(number + 1)
        slots.commit(new)
        np.testing.assert_array_equal(held(), state)
        if number == 1:
            mark, fork = slots.mark(), slots.fork(3)
    slots.make_room(counts(200), counts(300))
    np.testing.assert_array_equal(held(), states[2])
    slots.rollback(mark)
    np.testing.assert_array_equal(held(), states[1])
    np.testing.assert_array_equal(fork.views().conv_state, np.repeat(states[1], 3, 1))
