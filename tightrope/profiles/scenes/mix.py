"""All kinds in one task, in stated shares: what frontiers, planners and comparisons are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from tightrope.checks import check_one_of, check_whole
from tightrope.errors import InputError
from tightrope.profiles.scenes.lines import Made, Order

SHARES = {
    "scenes": 30,
    "crowded": 26,
    "fine": 16,
    "background": 12,
    "several": 8,
    "tiled": 4,
    "clips": 2,
    "views": 2,
}
"""Of the kinds, in percent of the scenes. Each scene has QUESTIONS_A_SCENE, or one a type.

Boards are left out: the reference model has not learnt to count on them.
"""
QUESTIONS_A_SCENE = 4
MOST_FRAMES = 4
"""Of a clip in a mix: a tower of 576 tokens a picture fills thousands of slots with more."""
TYPES = {
    "scenes": (
        *("colour", "shape", "existence", "count", "comparison", "position", "relation"),
        *("digit", "word", "list", "followup"),
    ),
    "tiled": ("colour", "shape", "existence", "position", "digit", "word", "stripes"),
    "clips": ("glimpse",),
    "views": ("colour", "shape"),
}
"""What a mix asks of a kind, where it does not ask everything: nothing without a picture, and
nothing that says which of several pictures is meant."""

Make = Callable[[Order, np.random.RandomState], Made]


def make_mix(kinds: Mapping[str, Make], order: Order, rng: np.random.RandomState) -> Made:
    """A scene of a kind drawn by its share, with some of its questions."""
    names = list(order.shares)
    shares = np.cumsum([order.shares[name] for name in names])
    kind = names[int(np.searchsorted(shares, rng.random_sample() * shares[-1], side="right"))]
    made = kinds[kind](order, rng)
    wanted = [line for line in made.lines if line["type"] in TYPES.get(kind, (line["type"],))]
    kept = sorted(rng.permutation(len(wanted))[:QUESTIONS_A_SCENE])
    lines = (wanted[at] for at in kept)
    return replace(
        made, lines=tuple(line | {"info": {"kind": kind, **line["info"]}} for line in lines)
    )


def check_shares(shares: Mapping[str, int], kinds: Iterable[str]) -> None:
    """Raises InputError unless `shares` are whole percents of known kinds that add up to 100."""
    accepted = tuple(kinds)
    for kind, share in shares.items():
        check_one_of("kind in a mix", kind, accepted)
        check_whole(f"share of {kind}", share, least=1, most=100, unit="whole percents")
    if sum(shares.values()) != 100:
        raise InputError(
            f"the shares of a mix add up to {sum(shares.values())} percent; accepted: 100"
        )
