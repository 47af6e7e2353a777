"""Requests drawn at random, by which the spread of predictions is known; none of them is fitted.

What is fitted spans all that a bundle can do, its ends above all: there a model errs more than it
does for what it is asked. How far it lies from requests, requests tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tightrope.bundle import Manifest
from tightrope.point import OperatingPoint
from tightrope.profiles.latency.pictures import Source, sources
from tightrope.profiles.latency.points import LEAST_BUDGET, Point
from tightrope.runtime.baselines import BASELINES

KINDS = 12
"""Of pictures: each is drawn and encoded once."""
SIDES = (320, 1920)
"""Of their widths, evenly by their logarithms."""
SHAPES = (1.0, 3 / 4, 9 / 16)
"""Height over width."""
MOST_WORDS, MOST_TOKENS = 40, 48
"""Of a question about a picture, and of an answer."""
SEEING, PRUNED, BUDGETED = 0.75, 0.7, 0.3
"""Shares of the requests that show a picture, of these that are pruned, and that have a budget."""


def draw_points(manifest: Manifest, seed: int = 0) -> Iterator[Point]:
    """As many as one likes; always the same ones."""
    rng = np.random.default_rng(seed)
    kinds = _pictures(rng)
    while True:
        text = int(rng.integers(4, manifest.prefill_chunk + 1))
        shown: tuple[Source, ...] = ()
        options: dict[str, Any] = {}
        if manifest.vision is not None and rng.random() < SEEING:
            text = int(rng.integers(4, MOST_WORDS))
            shown = (kinds[int(rng.integers(len(kinds)))],)
            options = _seen(manifest, rng)
        if rng.random() < BUDGETED:
            most = min(manifest.slots, max(manifest.prefill_chunk, LEAST_BUDGET))
            options["kv_budget"] = int(rng.integers(min(LEAST_BUDGET, most), most + 1))
        yield Point(
            name="a request drawn at random",
            text_tokens=text,
            sources=shown,
            completion_tokens=int(rng.integers(2, MOST_TOKENS + 1)),
            point=OperatingPoint(**options),
        )


def _seen(manifest: Manifest, rng: np.random.Generator) -> dict[str, Any]:
    """How a picture is read."""
    assert manifest.vision is not None
    options: dict[str, Any] = {"resolution": int(rng.choice(manifest.vision.resolutions))}
    if rng.random() < PRUNED:
        options["selector"] = _one(rng, [*manifest.selectors, next(iter(BASELINES))])
        options["keep"] = f"{rng.integers(10, 91)}%"
    return options


def _pictures(rng: np.random.Generator) -> list[Source]:
    formats = sorted({source.format for source in sources()})
    kinds = []
    for _ in range(KINDS):
        width = round(math.exp(rng.uniform(*np.log(SIDES))))
        height = round(width * SHAPES[int(rng.integers(len(SHAPES)))])
        kinds.append(Source(_one(rng, formats), width, height, rough=bool(rng.random() < 0.5)))
    return kinds


def _one(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]
