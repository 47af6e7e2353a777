"""What each policy keeps of a fact that stands early in a long prompt.

One early key is planted where queries will look. Policies that watch attention must keep it,
streaming must lose it, and the key's length alone decides for knorm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tightrope.errors import InputError
from tightrope.plugins.slot_attention.policies import POLICIES, find_policy
from tightrope.plugins.slot_attention.reference import slot_attention

HEADS, KV_HEADS, WIDTH = 4, 2, 16
LENGTH, CHUNK, BUDGET, FACT = 512, 64, 48, 37
SINKS, RECENT = 4, 8

Array = npt.NDArray[np.float32]


@dataclass
class Stream:
    """A prompt of one layer, in which token `FACT` answers the queries of some others."""

    query: Array
    key: Array
    value: Array

    @classmethod
    def made(cls, askers: range, strength: float, key_length: float, seed: int = 0) -> Stream:
        rng = np.random.default_rng(seed)
        query = rng.normal(size=(1, HEADS, LENGTH, WIDTH)) * 0.3
        key = rng.normal(size=(1, KV_HEADS, LENGTH, WIDTH))
        key *= 4 / np.linalg.norm(key, axis=-1, keepdims=True)
        value = rng.normal(size=(1, KV_HEADS, LENGTH, WIDTH))
        direction = rng.normal(size=WIDTH)
        direction /= np.linalg.norm(direction)
        key -= (key @ direction)[..., None] * direction  # nobody else points there
        key[:, :, FACT] = direction * key_length
        query[:, :, askers] += direction * strength
        parts = (part.astype(np.float32) for part in (query, key, value))
        return cls(*parts)


def kept_after(stream: Stream, policy: str) -> set[int]:
    """Ordinals that every head still holds after the whole prompt, chunk by chunk."""
    shape = (1, KV_HEADS, BUDGET)
    slot_key, slot_value = (np.zeros((*shape, WIDTH), np.float32) for _ in range(2))
    score, position = np.zeros(shape, np.float32), np.full(shape, -1, np.int32)
    for start in range(0, LENGTH, CHUNK):
        part = slice(start, start + CHUNK)
        _, target, score, position = slot_attention(
            stream.query[:, :, part],
            stream.key[:, :, part],
            stream.value[:, :, part],
            slot_key,
            slot_value,
            score,
            position,
            np.arange(start, start + CHUNK, dtype=np.int32)[None],
            np.full(KV_HEADS, BUDGET),
            POLICIES[policy].vector(SINKS, RECENT),
            scale=1.0,
        )
        for head, token in zip(*np.nonzero(target[0] >= 0), strict=True):
            slot_key[0, head, target[0, head, token]] = stream.key[0, head, start + token]
            slot_value[0, head, target[0, head, token]] = stream.value[0, head, start + token]
        assert (position >= 0).sum(-1).max() <= BUDGET
    return set.intersection(*(set(held.tolist()) for held in position[0]))


NEEDLE: dict[str, Any] = {"askers": range(FACT + 1, LENGTH), "strength": 2.0, "key_length": 5.0}


@pytest.mark.parametrize("policy", ["h2o", "tova", "snapkv"])
def test_a_fact_that_is_attended_to_is_kept(policy: str) -> None:
    assert FACT in kept_after(Stream.made(**NEEDLE), policy)


def test_streaming_loses_every_early_fact_and_holds_sinks_and_the_newest() -> None:
    kept = kept_after(Stream.made(**NEEDLE), "streaming")
    assert kept == {*range(SINKS), *range(LENGTH - BUDGET + SINKS, LENGTH)}


@pytest.mark.parametrize(("key_length", "is_kept"), [(1.0, True), (9.0, False)])
def test_knorm_keeps_a_fact_only_if_its_key_is_short(key_length: float, is_kept: bool) -> None:
    stream = Stream.made(range(FACT + 1, LENGTH), 2.0, key_length)
    assert (FACT in kept_after(stream, "knorm")) is is_kept


@pytest.mark.parametrize("policy", ["h2o", "tova", "snapkv"])
def test_a_fact_that_every_query_turns_away_from_is_lost(policy: str) -> None:
    # Merely being early is enough for a place under H2O: more queries come to see the token.
    stream = Stream.made(range(FACT, LENGTH), -2.0, 5.0)
    assert FACT not in kept_after(stream, policy)


def test_a_question_at_the_end_of_its_chunk_saves_a_fact_of_that_chunk_only() -> None:
    # TOVA asks the last query alone; in the chunks before the question nobody asks.
    asked_at_once = Stream.made(range(CHUNK - 1, LENGTH, CHUNK), 2.0, 5.0)
    asked_too_late = Stream.made(range(LENGTH - 1, LENGTH), 2.0, 5.0)
    assert FACT in kept_after(asked_at_once, "tova")
    assert FACT not in kept_after(asked_too_late, "tova")


def test_h2o_remembers_attention_that_tova_has_forgotten() -> None:
    early = Stream.made(range(FACT + 1, 3 * CHUNK), 3.0, 5.0)
    assert FACT in kept_after(early, "h2o")
    assert FACT not in kept_after(early, "tova")


def test_snapkv_saves_the_neighbours_of_a_fact_at_its_first_call() -> None:
    stream = Stream.made(range(CHUNK - 32, CHUNK), 3.0, 5.0)
    kept = kept_after(stream, "snapkv")
    assert set(range(FACT - 2, FACT + 3)) <= kept


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_keeps_its_sinks_and_recent_tokens(policy: str) -> None:
    kept = kept_after(Stream.made(range(0), 0.0, 4.0), policy)
    assert {*range(SINKS), *range(LENGTH - RECENT, LENGTH)} <= kept


@pytest.mark.parametrize(("policy", "recent"), [("h2o", 100), ("snapkv", 32), ("tova", 16)])
def test_defaults_are_the_published_ones(policy: str, recent: int) -> None:
    assert POLICIES[policy].protected(200, None, None) == (4, recent)


@pytest.mark.parametrize("budget", [20, 12])
def test_a_budget_that_its_protected_tokens_fill_is_refused(budget: int) -> None:
    with pytest.raises(InputError, match="21 or more"):
        find_policy("tova").protected(budget, None, None)
    assert find_policy("tova").protected(21, None, None) == (4, 16)


def test_an_unknown_policy_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="streaming, h2o, tova, knorm, snapkv"):
        find_policy("nosuch")


def test_the_eight_numbers_stand_in_their_order() -> None:
    expected: dict[str, Any] = {
        "streaming": (1, 0, 1, 0, 1, 0),
        "h2o": (1, 1, 0, 0, 0, 0),
        "tova": (0, 1, 0, 0, 1, 0),
        "knorm": (1, 0, 0, 1, 1, 0),
        "snapkv": (1, 1, 0, 0, 32, 1),
    }
    for name, numbers in expected.items():
        assert POLICIES[name].vector(3, 7).tolist() == [*numbers, 3, 7]
    assert set(POLICIES) == set(expected)
