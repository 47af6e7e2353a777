"""`SlotAttention` in numpy and float32: the oracle that every other face is tested against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int32]

PROTECTED = np.float32(1e30)
ABSENT = np.float32(2e30)


def slot_attention(
    query: Array,
    key: Array,
    value: Array,
    slot_key: Array,
    slot_value: Array,
    slot_score: Array,
    slot_position: Indices,
    query_position: Indices,
    budget: npt.NDArray[np.int64],
    policy: Array,
    *,
    scale: float,
    softcap: float = 0.0,
    window: int = 0,
    pool_kernel: int = 5,
) -> tuple[Array, Indices, Array, Indices]:
    """out, target, slot_score and slot_position of one call; shapes as in the schema."""
    n, q_heads, s, _ = query.shape
    kv_heads, used, capacity = key.shape[1], slot_key.shape[2], slot_score.shape[2]
    group = q_heads // kv_heads
    decay, attention, position, key_norm, score_window, pool, sinks, recent = policy
    valid = query_position >= 0

    # Attend: columns are the slots in use, then the new tokens.
    columns = np.concatenate(
        [slot_position[:, :, :used], np.repeat(query_position[:, None], kv_heads, 1)], 2
    )
    keys = np.repeat(np.concatenate([slot_key, key], 2), group, 1)
    values = np.repeat(np.concatenate([slot_value, value], 2), group, 1)
    logits = np.einsum("nhsd,nhcd->nhsc", query * np.float32(scale), keys)
    if softcap:
        logits = np.tanh(logits / softcap) * softcap
    rows = query_position[:, None, :, None]
    seen = (columns >= 0)[:, :, None] & (columns[:, :, None] <= rows)
    if window:
        seen &= rows - columns[:, :, None] < window
    logits = np.where(np.repeat(seen, group, 1), logits, -np.inf)
    peak = logits.max(-1, keepdims=True)
    weight = np.exp(logits - np.where(np.isfinite(peak), peak, 0))
    total = weight.sum(-1, keepdims=True)
    weight = weight / np.where(total > 0, total, 1)
    out = np.einsum("nhsc,nhcd->nhsd", weight, values)

    # Score: mass from the last `score_window` valid queries, then the policy's recurrence.
    place = np.cumsum(valid, 1)
    counted = valid & ((score_window == 0) | (place > place[:, -1:] - score_window))
    per_head = weight.reshape(n, kv_heads, group, s, -1)
    mass = np.einsum("nhgsc,ns->nhc", per_head, counted.astype(np.float32))
    mass_old = np.zeros_like(slot_score)
    mass_old[:, :, :used] = mass[:, :, :used]
    mass_new = mass[:, :, used:]
    if pool:
        mass_new = _pool(mass_new, valid, pool_kernel)
    ordinal = query_position[:, None].astype(np.float32)
    birth = position * ordinal - key_norm * np.linalg.norm(key.astype(np.float32), axis=-1)
    score_old = decay * slot_score + attention * mass_old
    score_new = decay * birth + attention * mass_new

    # Keep: the lowest scores leave, protected tokens never, ties by the lower index.
    newest = query_position.max(1)[:, None, None]
    ordinals = np.concatenate([slot_position, np.repeat(query_position[:, None], kv_heads, 1)], 2)
    safe = (ordinals < sinks) | (ordinals > newest - recent)
    rank_by = np.where(safe, PROTECTED, np.concatenate([score_old, score_new], 2))
    rank_by = np.where(ordinals < 0, ABSENT, rank_by)
    order = np.argsort(rank_by, axis=-1, kind="stable")
    surplus = (ordinals >= 0).sum(-1, keepdims=True) - budget
    leaves = np.zeros(ordinals.shape, bool)
    np.put_along_axis(leaves, order, np.arange(capacity + s) < surplus, -1)

    # Place: survivors among the new take the slots given up first, then empty ones, ascending.
    preference = np.where(leaves[:, :, :capacity], 0, np.where(slot_position < 0, 1, 2))
    places = np.argsort(preference, axis=-1, kind="stable")
    stays = (valid[:, None] & ~leaves[:, :, capacity:]).astype(np.int64)
    nth = np.clip(np.cumsum(stays, -1) - 1, 0, capacity - 1)
    target = np.where(stays, np.take_along_axis(places, nth, -1), -1).astype(np.int32)

    alive = newest >= 0
    present = np.where(leaves[:, :, :capacity], -1, slot_position)
    score = np.where(alive, np.where(present < 0, 0, score_old), slot_score).astype(np.float32)
    for row, head, token in zip(*np.nonzero(stays), strict=True):
        present[row, head, target[row, head, token]] = query_position[row, token]
        score[row, head, target[row, head, token]] = score_new[row, head, token]
    return out.astype(np.float32), target, score, present.astype(np.int32)


def _pool(mass: Array, valid: npt.NDArray[np.bool_], kernel: int) -> Array:
    """Mean over the valid neighbours within `kernel`; mass [N, Hkv, S], valid [N, S]."""
    side = kernel // 2
    padded = np.pad(mass, ((0, 0), (0, 0), (side, side)))
    count = np.pad(valid.astype(np.float32)[:, None], ((0, 0), (0, 0), (side, side)))
    windows = np.lib.stride_tricks.sliding_window_view
    total = windows(padded, kernel, -1).sum(-1)
    pooled: Array = total / np.maximum(windows(count, kernel, -1).sum(-1), 1)
    return pooled
