"""What a profile of quality found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tightrope.profiles.task.tally import Tally
from tightrope.quality_file import MeasuredPoint, Quality
from tightrope.schemas import versioned


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """A quality file and how far its race came."""

    file: Path
    quality: Quality
    questions: int
    """That are asked of a point which stays in the race."""
    without_reference: int
    """Questions left out, because no right answer is known."""
    complete: bool
    """Whether all was asked; else the time was over."""
    racing: int
    """Points that have not left."""
    asked: int
    """Answers generated now; what was known before or followed from another point is not among
    them."""
    seconds: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with a schema number; the outcomes stay in the file."""
        values = asdict(self) | asdict(self.quality.key) | {"file": str(self.file)}
        del values["quality"]
        points = [_told(point) for point in self.quality.points]
        return versioned("quality", values | {"points": points})


def score_of(point: MeasuredPoint) -> Tally:
    """Its scores, summed."""
    scores = [outcome.score for outcome in point.outcomes]
    return Tally(n=len(scores), right=sum(scores))


def agreement_of(point: MeasuredPoint) -> float | None:
    """Mean share of the unpruned answers' tokens that it repeated; None where none was known."""
    shares = [
        outcome.token_agreement for outcome in point.outcomes if outcome.token_agreement is not None
    ]
    return fmean(shares) if shares else None


def tokens_of(point: MeasuredPoint) -> float | None:
    """Mean length of its answers; None where nothing was asked."""
    lengths = [outcome.completion_tokens for outcome in point.outcomes]
    return fmean(lengths) if lengths else None


def _told(point: MeasuredPoint) -> dict[str, Any]:
    score = score_of(point)
    return {
        "point": asdict(point.point),
        "n": score.n,
        "score": score.accuracy,
        "interval": score.interval,
        "token_agreement": agreement_of(point),
        "completion_tokens": tokens_of(point),
        "beaten_by": None if point.beaten_by is None else asdict(point.beaten_by),
    }
