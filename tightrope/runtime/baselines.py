"""Selectors that look at nothing: kept indices from the counts alone, computed on the host.

Every bundle has them: what any method has to beat, and the floor of every comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tightrope.arrays import Indices


class Draw(Protocol):
    """Kept indices of one image, int64 [K] ascending; 1 <= keep <= available."""

    def __call__(self, number: int, available: int, keep: int, seed: int) -> Indices:
        """number: the image's place among those of the request, the first 0."""


def uniform(number: int, available: int, keep: int, seed: int) -> Indices:
    """The middle token of each of `keep` equal stretches, the same in every image."""
    assert 1 <= keep <= available
    return (2 * np.arange(keep, dtype=np.int64) + 1) * available // (2 * keep)


def random(number: int, available: int, keep: int, seed: int) -> Indices:
    """`keep` different tokens; an image's draw does not depend on how many stand beside it."""
    assert 1 <= keep <= available
    order = np.random.default_rng(seed).random((number + 1, available))[number].argsort()
    return np.sort(order[:keep])


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a baseline states of itself, as a selector does."""

    name: str
    paper: str
    default_keep: str = "25%"
    indices: Draw


Baselines = Mapping[str, Baseline]
BASELINES: Baselines = {
    baseline.name: baseline
    for baseline in (
        Baseline(name="uniform", paper="baseline: evenly spaced in raster order", indices=uniform),
        Baseline(
            name="random", paper="baseline: drawn without replacement, seeded", indices=random
        ),
    )
}
