"""`likeliest` in numpy: the oracle that the kernel is tested against."""

from __future__ import annotations

import numpy as np

from tightrope.arrays import Array, Floats
from tightrope.plugins.likeliest import BLOCK, COUNT, RUN, blocks_of


def likeliest(logits: Floats) -> tuple[Floats, Array]:
    """The largest logits of each block, float32 [N,blocks,COUNT], and their tokens, int32.

    logits: float32 [N,vocab]. The largest stand first, of equal ones the lower token. NaN counts as
    infinity, so that whoever looks sees that something is wrong; -inf stands where there are no
    more, and its token says nothing.
    """
    rows, vocabulary = logits.shape
    blocks = blocks_of(vocabulary)
    tokens = np.arange(blocks * BLOCK, dtype=np.int32)
    padded = np.full((rows, len(tokens)), -np.inf, np.float32)
    padded[:, :vocabulary] = np.where(np.isnan(logits), np.inf, logits)
    values, tokens = (_by_block(each) for each in (padded, np.tile(tokens, (rows, 1))))
    order = np.argsort(-values, axis=2, kind="stable")[..., :COUNT]
    return np.take_along_axis(values, order, 2), np.take_along_axis(tokens, order, 2)


def _by_block(row: Array) -> Array:
    """[N,blocks*BLOCK] to [N,blocks,BLOCK]."""
    apart = row.reshape(len(row), BLOCK // RUN, -1, RUN).transpose(0, 2, 1, 3)
    blocks: Array = apart.reshape(len(row), -1, BLOCK)
    return blocks
