"""Calls of `SelectTokens` of lengths around a kernel's block, and the ends of float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tightrope.plugins.cases import Case

ENDS = (-0.0, 0.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf)


def around_blocks() -> Iterator[Case]:
    for length, candidates, keep in (
        (1, 1, 1),
        (65, 65, 32),
        (600, 576, 144),
        (1023, 1023, 100),
        (1025, 1024, 1023),
        (2100, 1500, 700),
    ):
        for levels in (1 << 20, 3, 1):
            scores = np.arange(levels, dtype=np.float32) - levels // 2
            yield drawn(f"{levels} different scores", length, candidates, keep, scores)
    yield drawn("the ends of float32", 90, 70, 33, np.array(ENDS, np.float32))
    yield drawn("zeros of either sign", 90, 70, 33, np.array(ENDS[:2], np.float32))


def drawn(what: str, length: int, candidates: int, keep: int, scores: np.ndarray) -> Case:
    """scores: those that are drawn from."""
    rng, rows = np.random.default_rng(length + keep), 2
    score = rng.choice(scores, (rows, length))
    places = np.stack([np.sort(rng.permutation(length)[:candidates]) for _ in range(rows)])
    return Case(
        name=f"{keep} of {candidates} among {length}: {what}",
        inputs=(score, places, np.arange(keep)),
    )


CASES = tuple(around_blocks())
