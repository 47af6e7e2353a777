"""Logits that stay on a device, of which the host has the likeliest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tightrope.arrays import Floats, Indices


@dataclass(frozen=True, slots=True, eq=False)
class Likeliest:
    """Some of each row's logits: every token that is likelier than `bound` is among them."""

    token_ids: Indices
    """[N,M]"""
    logits: Floats
    """[N,M], -inf where there are fewer; NaN of the row stands as infinity"""
    bound: Floats
    """[N]"""
    copied: Callable[[], Floats]
    """All of the logits, [N,vocab], brought to the host; until the next call."""


Logits: TypeAlias = "Floats | Likeliest"
"""[N,vocab] of a step, or as much of it as left the device."""


def whole(logits: Logits) -> Floats:
    """[N,vocab] in the host's memory."""
    return logits.copied() if isinstance(logits, Likeliest) else logits


def of_whole(choose: Callable[[Floats], Indices]) -> Callable[[Logits], Indices]:
    """`choose` over all of the logits."""
    return lambda logits: choose(whole(logits))


def gathered(values: Floats, tokens: Indices, copied: Callable[[], Floats]) -> Likeliest:
    """From the largest of each block, [N,blocks,COUNT], as `plugins.likeliest` gives them."""
    flat = values.reshape(len(values), -1)
    return Likeliest(tokens.reshape(flat.shape), flat, np.max(values[..., -1], 1), copied)
