"""`VarlenAttention` in numpy: the oracle that every other face is tested against."""

from __future__ import annotations

import itertools

import numpy as np

from tightrope.arrays import Floats, Ordinals


def varlen_attention(
    query: Floats, key: Floats, value: Floats, cu_seqlens: Ordinals, scale: float
) -> Floats:
    """out [1,H,T,D] of one call in float32; shapes as in the schema."""
    out = np.zeros(query.shape, np.float32)
    for begin, end in itertools.pairwise(cu_seqlens.tolist()):
        part = np.s_[:, :, begin:end]
        if begin < end:
            logits = (query[part] * np.float32(scale)) @ key[part].swapaxes(2, 3)
            weight = np.exp(logits - logits.max(-1, keepdims=True))
            out[part] = weight / weight.sum(-1, keepdims=True) @ value[part]
    return out
