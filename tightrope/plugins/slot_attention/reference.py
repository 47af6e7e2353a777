"""`SlotAttention` in numpy and float32: the oracle that every other face is tested against.

Four parts, as every face is cut: attend, score, leave, place.
"""

from __future__ import annotations

import numpy as np

from tightrope.arrays import Flags, Floats, Indices, Ordinals
from tightrope.plugins.commit.reference import from_int8
from tightrope.plugins.slot_attention.scores import DEFAULT_SCORE, SCORES, Evidence, PolicyNumbers

PROTECTED = np.float32(1e30)
ABSENT = np.float32(2e30)


def slot_attention(
    query: Floats,
    key: Floats,
    value: Floats,
    slot_key: Floats,
    slot_value: Floats,
    slot_score: Floats,
    slot_position: Ordinals,
    query_position: Ordinals,
    kv_budget: Indices,
    policy: Floats,
    query_reach: Ordinals | None = None,
    slot_key_scale: Floats | None = None,
    slot_value_scale: Floats | None = None,
    *,
    scale: float,
    softcap: float = 0.0,
    window: int = 0,
    pool_kernel: int = 5,
    score: str = DEFAULT_SCORE,
) -> tuple[Floats, Ordinals, Floats, Ordinals]:
    """out, target, slot_score and slot_position of one call; shapes as in the schema.

    query_reach: None where no token attends to later ones.
    Scales are None where slots hold floats.
    """
    if slot_key_scale is not None and slot_value_scale is not None:
        slot_key = from_int8(slot_key, slot_key_scale)
        slot_value = from_int8(slot_value, slot_value_scale)
    numbers, used = PolicyNumbers(*policy), slot_key.shape[2]
    rows = np.repeat(query_position[:, None], key.shape[1], 1)  # [N,Hkv,S]
    out, weight = attend(
        query * np.float32(scale),
        np.concatenate([slot_key, key], 2),
        np.concatenate([slot_value, value], 2),
        np.concatenate([slot_position[:, :, :used], rows], 2),
        query_position,
        query_position if query_reach is None else query_reach,
        softcap,
        window,
    )
    mass = received(weight, query_position, numbers.score_window)
    mass_old = np.zeros_like(slot_score)
    mass_old[:, :, :used] = mass[:, :, :used]
    score_old, score_new = SCORES[score].reference(
        Evidence(
            mass_old=mass_old,
            mass_new=mass[:, :, used:],
            key=key,
            slot_score=slot_score,
            query_position=query_position,
            policy=numbers,
            slot_key=slot_key,
            pool_kernel=pool_kernel,
        )
    )
    ordinals = np.concatenate([slot_position, rows], 2)
    leaves = leave(
        np.concatenate([score_old, score_new], 2), ordinals, query_position, kv_budget, numbers
    )
    target = place(leaves, slot_position, query_position)

    alive = query_position.max(1)[:, None, None] >= 0
    position = np.where(leaves[:, :, : slot_score.shape[2]], -1, slot_position)
    scores = np.where(alive, np.where(position < 0, 0, score_old), slot_score).astype(np.float32)
    for row, head, token in zip(*np.nonzero(target >= 0), strict=True):
        position[row, head, target[row, head, token]] = query_position[row, token]
        scores[row, head, target[row, head, token]] = score_new[row, head, token]
    return out.astype(np.float32), target, scores, position.astype(np.int32)


def attend(
    query: Floats,
    keys: Floats,
    values: Floats,
    ordinals: Ordinals,
    query_position: Ordinals,
    query_reach: Ordinals,
    softcap: float,
    window: int,
) -> tuple[Floats, Floats]:
    """Output [N,Hq,S,D] and weights [N,Hkv,G,S,U+S] of scaled queries over slots and new tokens.

    keys and values [N,Hkv,U+S,D], ordinals [N,Hkv,U+S], -1 where there is nothing to see.
    """
    n, q_heads, s, _ = query.shape
    kv_heads = keys.shape[1]
    group = q_heads // kv_heads
    logits = np.einsum("nhsd,nhcd->nhsc", query, np.repeat(keys, group, 1))
    if softcap:
        logits = np.tanh(logits / softcap) * softcap
    rows, ends = query_position[:, None, :, None], query_reach[:, None, :, None]
    seen = (ordinals >= 0)[:, :, None] & (ordinals[:, :, None] <= ends)
    if window:
        seen &= rows - ordinals[:, :, None] < window
    logits = np.where(np.repeat(seen, group, 1), logits, -np.inf)
    peak = logits.max(-1, keepdims=True)
    weight = np.exp(logits - np.where(np.isfinite(peak), peak, 0))
    total = weight.sum(-1, keepdims=True)
    weight = weight / np.where(total > 0, total, 1)
    out = np.einsum("nhsc,nhcd->nhsd", weight, np.repeat(values, group, 1))
    return out, weight.reshape(n, kv_heads, group, s, -1)


def received(weight: Floats, query_position: Ordinals, score_window: float) -> Floats:
    """Attention [N,Hkv,U+S] from the last `score_window` valid queries, 0: from all."""
    valid = query_position >= 0
    place = np.cumsum(valid, 1)
    counted = valid & ((score_window == 0) | (place > place[:, -1:] - score_window))
    mass: Floats = np.einsum("nhgsc,ns->nhc", weight, counted.astype(np.float32))
    return mass


def leave(
    scores: Floats,
    ordinals: Ordinals,
    query_position: Ordinals,
    kv_budget: Indices,
    policy: PolicyNumbers,
) -> Flags:
    """Which of slots and new tokens [N,Hkv,C+S] are given up, so that `kv_budget` [Hkv] are left.

    The lowest scores leave, protected tokens never, ties by the lower index. Of query_position
    only each row's newest matters.
    """
    newest = query_position.max(1)[:, None, None]
    safe = (ordinals < policy.sinks) | (ordinals > newest - policy.recent)
    rank_by = np.where(safe, PROTECTED, scores)
    rank_by = np.where(ordinals < 0, ABSENT, rank_by)
    order = np.argsort(rank_by, axis=-1, kind="stable")
    surplus = (ordinals >= 0).sum(-1, keepdims=True) - kv_budget[:, None]
    leaves = np.zeros(ordinals.shape, bool)
    np.put_along_axis(leaves, order, np.arange(ordinals.shape[2]) < surplus, -1)
    return leaves


def place(leaves: Flags, slot_position: Ordinals, query_position: Ordinals) -> Ordinals:
    """The slot of each new token [N,Hkv,S], -1 for one that does not stay.

    Slots given up are taken first, then empty ones, each ascending.
    """
    capacity = slot_position.shape[2]
    preference = np.where(leaves[:, :, :capacity], 0, np.where(slot_position < 0, 1, 2))
    places = np.argsort(preference, axis=-1, kind="stable")
    stays = ((query_position >= 0)[:, None] & ~leaves[:, :, capacity:]).astype(np.int64)
    nth = np.clip(np.cumsum(stays, -1) - 1, 0, capacity - 1)
    target: Ordinals = np.where(stays, np.take_along_axis(places, nth, -1), -1).astype(np.int32)
    return target
