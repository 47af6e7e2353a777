"""Selectors that look at nothing: kept indices from the counts alone, computed on the host."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


class Baseline(Protocol):
    """Kept indices of each image, int64 [I,K] ascending; 1 <= keep <= available."""

    def __call__(self, num_images: int, available: int, keep: int, seed: int) -> Indices: ...


def uniform(num_images: int, available: int, keep: int, seed: int) -> Indices:
    """The middle token of each of `keep` equal stretches, the same in every image."""
    assert 1 <= keep <= available
    index = (2 * np.arange(keep, dtype=np.int64) + 1) * available // (2 * keep)
    return np.tile(index, (num_images, 1))


def random(num_images: int, available: int, keep: int, seed: int) -> Indices:
    """`keep` different tokens; an image's draw does not depend on how many follow it."""
    assert 1 <= keep <= available
    order = np.random.default_rng(seed).random((num_images, available)).argsort(axis=1)
    return np.sort(order[:, :keep], axis=1)


BASELINES: dict[str, Baseline] = {"uniform": uniform, "random": random}
