"""The likeliest tokens of a step on the device that computed it, so that few logits leave it.

No op of a graph: the runtime launches it behind one. A block has RUN tokens here and RUN there, as
far apart as there are blocks, because likely tokens lie side by side in a vocabulary.
"""

from __future__ import annotations

BLOCK, RUN, COUNT = 1024, 64, 8
"""Logits of a block, how many of them are neighbours, and how many of the largest it gives."""


def blocks_of(vocabulary: int) -> int:
    """Blocks of one row of logits."""
    return -(-vocabulary // BLOCK)


__all__ = ["BLOCK", "COUNT", "RUN", "blocks_of"]
