"""`SelectTokens` in numpy: the oracle that every other face is tested against."""

from __future__ import annotations

import numpy as np

from tightrope.arrays import Floats, Indices


def select_tokens(
    score: Floats, candidates: Indices, keep_ramp: Indices
) -> tuple[Indices, Indices]:
    """index [N,S-V+K] and candidates [N,K] of one call; shapes as in the schema."""
    keep = len(keep_ramp)
    indices, places = [], []
    for row, wanted in zip(score, candidates, strict=True):
        best = wanted[np.lexsort((wanted, -row[wanted]))[:keep]]
        index = np.sort(np.concatenate([np.setdiff1d(np.arange(len(row)), wanted), best]))
        indices.append(index)
        places.append(np.flatnonzero(np.isin(index, best)))
    return np.stack(indices), np.stack(places)
