"""Who leaves a race of points that are asked the same questions in growing rounds.

A point leaves when another one is better and no dearer. Better is what a paired test says over the
questions that both were asked: a bet, question by question, that the other one scores higher. Of a
capital of 1 a share is staked, which wins as much as the scores differ in its favour and loses as
much as they differ against it. Were the other one no better, no way of betting would grow the
capital on average, and the chance that it ever reaches a hundred is a hundredth at most (Ville's
inequality; Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
2024). That holds however often one looks, so rounds need no correction; the chance of one error is
shared among all that could beat a point. Of answers that are right or wrong only those count where
the two differ, as in McNemar's test.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from tightrope.arrays import Floats

ERROR = 0.05
"""Chance that a point which no other one beats leaves all the same, over a whole race."""
BETS = np.arange(0.1, 1.0, 0.1)
"""Shares of the capital that are staked; the capital is spread evenly over all of them."""
FIRST_ROUND = 32

Point = TypeVar("Point", bound=Hashable)
Costs = Mapping[Point, Sequence[float]]
"""What a point spends of each thing; only where none is more is a point no dearer."""


def round_ends(questions: int) -> list[int]:
    """How many questions have been asked when each round ends: 32, 64, 128, and so on to all."""
    ends = []
    end = FIRST_ROUND
    while end < questions:
        ends.append(end)
        end *= 2
    return [*ends, questions]


def capital(differences: Floats) -> float:
    """What 1 grew to that was staked on the mean of `differences` [N], -1..1, being above 0."""
    grown = np.log1p(np.outer(BETS, differences)).sum(axis=1)
    return float(np.exp(np.minimum(grown, 700.0)).mean())  # no overflow: it has long been enough


def leavers(
    scores: Mapping[Point, Mapping[str, float]], costs: Costs[Point], field: int
) -> dict[Point, Point]:
    """Points that leave now, each with one that is better and no dearer.

    scores: of each point that still races, by question, 0..1. field: points that raced at first.
    The order of points and questions decides nothing. Never does all of the field leave: whoever
    wins a bet has the higher mean over the same questions.
    """
    table = _table(scores)
    means = {point: float(np.nanmean(row)) for point, row in table.items()}
    better: dict[Point, list[Point]] = {}
    for point in means:
        rivals = [
            other for other in means if other != point and _no_dearer(costs[other], costs[point])
        ]
        # Those that left may have been rivals too.
        needed = (len(rivals) + field - len(scores)) / ERROR
        winners = [
            other
            for other in rivals
            if means[other] > means[point]
            and capital(_differences(table[other], table[point])) >= needed
        ]
        if winners:
            better[point] = winners
    # One that stays says more than one that leaves as well.
    return {
        point: max(winners, key=lambda other: (other not in better, means[other], str(other)))
        for point, winners in better.items()
    }


def _table(scores: Mapping[Point, Mapping[str, float]]) -> dict[Point, Floats]:
    """Of each point its scores of all questions, NaN where it was not asked."""
    questions = sorted({question for asked in scores.values() for question in asked})
    return {
        point: np.array([asked.get(question, np.nan) for question in questions])
        for point, asked in scores.items()
        if asked
    }


def _differences(better: Floats, worse: Floats) -> Floats:
    both: Floats = better - worse
    return both[~np.isnan(both)]


def _no_dearer(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
