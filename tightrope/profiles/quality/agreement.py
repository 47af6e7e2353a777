"""Whether agreement with the unpruned answer ranks operating points as accuracy does.

Where no right answers are known, a profile can only count how often a point says what is said at
everything. A file with labels holds both, so it tells how far that may be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from tightrope.arrays import Doubles
from tightrope.paired import mean_score
from tightrope.point import OperatingPoint
from tightrope.profiles.quality.report import agreement_of
from tightrope.quality_file import MeasuredPoint, Quality
from tightrope.runtime.agreement import same_answer

LEAST_POINTS = 3
"""Two points are ranked alike or the other way round, and nothing between."""
EXACT = 9
"""Decimals by which equal shares are equal, however they were summed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCorrelation:
    """Spearman's, -1..1, between accuracy and agreement over operating points."""

    points: int
    answers: float | None
    """Agreement: the share of answers that say the same; None where either has one value."""
    tokens: float | None
    """Agreement: the share of the unpruned answers' tokens that are repeated in their places."""

    def in_words(self) -> str:
        """A sentence."""
        return (
            f"Of {self.points} points, agreement with the unpruned answer has a rank correlation "
            f"of {_figure(self.answers)} with accuracy (of tokens in their places: "
            f"{_figure(self.tokens)})."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def rank_correlation(quality: Quality, everything: OperatingPoint) -> RankCorrelation | None:
    """Over the points that did not leave the race, `everything` not among them.

    It agrees with itself, so it would be the best by either. None of a file without labels, or
    without `everything`, or with fewer than three other points.
    """
    reference = next((each for each in quality.points if each.point == everything), None)
    racing = [
        each
        for each in quality.points
        if each.outcomes and each.beaten_by is None and each.point != everything
    ]
    if quality.key.measure != "accuracy" or reference is None or len(racing) < LEAST_POINTS:
        return None
    answers = [_same_answers(each, reference) for each in racing]
    tokens = [agreement_of(each) for each in racing]
    scores = [mean_score(each) for each in racing]
    return RankCorrelation(
        points=len(racing), answers=_known(scores, answers), tokens=_known(scores, tokens)
    )


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Correlation of the ranks, equal values sharing theirs; None where either has one value.

    Spearman 1904, The Proof and Measurement of Association between Two Things.
    """
    one, other = _ranks(first), _ranks(second)
    spread = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / spread) if spread else None


def _figure(correlation: float | None) -> str:
    return "unknown" if correlation is None else f"{correlation:.2f}"


def _known(first: Sequence[float | None], second: Sequence[float | None]) -> float | None:
    """None where a value is not known."""
    one = [value for value in first if value is not None]
    other = [value for value in second if value is not None]
    return spearman(one, other) if len(one) == len(other) == len(first) else None


def _ranks(values: Sequence[float]) -> Doubles:
    """Ranks around their mean, [N]."""
    rounded = np.round(np.asarray(values, np.float64), EXACT)
    _, places, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return np.asarray(ranks - ranks.mean(), np.float64)


def _same_answers(point: MeasuredPoint, reference: MeasuredPoint) -> float | None:
    """Over the questions that both were asked; None where there are none."""
    said = {outcome.question: outcome.text for outcome in reference.outcomes}
    same = [
        same_answer(outcome.text, said[outcome.question])
        for outcome in point.outcomes
        if outcome.question in said
    ]
    return fmean(same) if same else None
