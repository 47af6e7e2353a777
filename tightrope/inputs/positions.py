"""Rotary positions from ordinals, by the rule that a bundle names.

A rule gives the positions of a prompt and the delta by which those of later tokens differ from
their ordinals. It sees the unpruned stream: what stays of an image keeps its positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Indices, Ordinals
from tightrope.errors import BundleError
from tightrope.inputs.layout import Placed


@dataclass(frozen=True, slots=True)
class RotaryPositions:
    """What the rotary embedding gets."""

    positions: Indices
    """[S], or [3,S] where they have three axes"""
    delta: int
    """Position - ordinal of the tokens that follow, on every axis."""


def _ordinal(runs: Sequence[Placed], ordinals: Ordinals, delta: int) -> RotaryPositions:
    return RotaryPositions(ordinals.astype(np.int64), 0)


def _mrope(runs: Sequence[Placed], ordinals: Ordinals, delta: int) -> RotaryPositions:
    """M-RoPE of Qwen-VL: time, row and column.

    Text counts on in all three. A visual token has the row and the column of its cell, counted from
    where its image begins; what follows counts on from the image's longer side. Frames side by side
    begin where the first does, each at its time. A generated token follows the largest position.
    """
    begin = runs[0].ordinal
    place = first = begin + delta
    parts = []
    for run in runs:
        if run.ids:
            parts.append(np.tile(place + np.arange(len(run.ids)), (3, 1)))
            place += len(run.ids)
        else:
            cell = np.arange(run.count)
            first = place if run.behind is None else first
            time = np.full(run.count, run.behind or 0)
            parts.append(first + np.stack([time, cell // run.columns, cell % run.columns]))
            place = max(place, first + max(run.columns, run.count // run.columns))
    every = np.concatenate(parts, axis=1)
    follows = max(place, int(every.max()) + 1)
    return RotaryPositions(every[:, ordinals - begin], follows - begin - every.shape[1])


def following(ordinals: Ordinals, delta: int, axes: int) -> Indices:
    """Positions of text behind a prompt, ordinals [N,S]: [N,S], or [axes,N,S]."""
    places = ordinals.astype(np.int64) + delta
    return places if axes == 1 else np.tile(places, (axes, 1, 1))


Rule = Callable[[Sequence[Placed], Ordinals, int], RotaryPositions]
"""runs: of the unpruned stream that is read. ordinals: [S], of what is left of it. delta: of what
was read before."""
RULES: dict[str, Rule] = {"ordinal": _ordinal, "mrope": _mrope}
AXES = {"ordinal": 1, "mrope": 3}
"""Positions of a token, by rule."""


def find_rule(name: str) -> Rule:
    """The rule called `name`; raises BundleError for one that this version does not know."""
    if name not in RULES:
        raise BundleError(
            f"bundle.json has positions {name!r}; this version knows: {', '.join(RULES)}. "
            "Upgrade tightrope"
        )
    return RULES[name]
