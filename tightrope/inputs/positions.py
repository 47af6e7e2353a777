"""Rotary positions from ordinals, by the rule that a bundle names.

A rule gives the positions of a prompt and the delta by which those of later tokens differ from
their ordinals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Indices, Ordinals
from tightrope.errors import BundleError


@dataclass(frozen=True, slots=True)
class RotaryPositions:
    """What the rotary embedding gets."""

    positions: Indices
    """[S]"""
    delta: int
    """Position - ordinal of the tokens that follow."""


def _ordinal(ordinals: Ordinals) -> RotaryPositions:
    return RotaryPositions(ordinals.astype(np.int64), 0)


Rule = Callable[[Ordinals], RotaryPositions]
RULES: dict[str, Rule] = {"ordinal": _ordinal}


def find_rule(name: str) -> Rule:
    """The rule called `name`; raises BundleError for one that this version does not know."""
    if name not in RULES:
        raise BundleError(
            f"bundle.json has positions {name!r}; this version knows: {', '.join(RULES)}. "
            "Upgrade tightrope"
        )
    return RULES[name]
