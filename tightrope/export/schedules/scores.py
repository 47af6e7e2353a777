"""Scores that several schedules share, traced from torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from tightrope.export.tracing.attention import LayerAttention


def last_query_attention(given: LayerAttention) -> torch.Tensor:
    """Softmax attention of each row's last valid query to the new tokens, mean over heads.

    One row of attention is computed again; the full map never exists. float32 [N,S].
    """
    import torch

    query, key, slot_key = given.query, given.key, given.slot_key
    rows, heads, length, width = query.shape
    last = ((given.query_position >= 0).sum(1) - 1).clamp(min=0)
    index = last[:, None, None, None].expand(-1, heads, 1, width)
    one = torch.gather(query, 2, index).reshape(rows, key.shape[1], -1, width)
    used = given.slot_position[:, :, : slot_key.shape[2]]
    logits = torch.cat([one @ slot_key.transpose(2, 3), one @ key.transpose(2, 3)], -1)
    padding = (given.query_position < 0)[:, None].expand(-1, key.shape[1], -1)
    hidden = torch.cat([used < 0, padding], 2)
    weight = logits.float().masked_fill(hidden[:, :, None], -1e30).softmax(-1)
    score: torch.Tensor = weight.mean((1, 2))[:, -length:]
    return score
