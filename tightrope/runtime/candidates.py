"""Which operating points a planner may choose, the best first where nothing was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from tightrope.bundle import Manifest
from tightrope.paired import mean_score
from tightrope.point import OperatingPoint, keep_count
from tightrope.quality_file import MeasuredPoint, Quality

KEEPS = ("50%", "25%", "12.5%")
"""Of visual tokens, beside all of them, where nothing was measured."""
LONGEST_ANSWER = 0.99
"""Share of a task's answers that are no longer than what is counted on."""
ANSWER_TOKENS = 8
"""Held back for the answer behind a thought, where none were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A point that may be chosen, and how long answers are there."""

    measured: MeasuredPoint
    """Without outcomes where quality is assumed."""
    quality: float | None
    most_tokens: int | None
    """Of 99 in 100 answers; None where none were measured."""
    answer_tokens: int
    """Of these, behind the thought."""

    @property
    def point(self) -> OperatingPoint:
        return self.measured.point


def candidate_of(measured: MeasuredPoint) -> Candidate:
    """A point with the lengths of its answers."""
    outcomes = measured.outcomes
    if not outcomes:
        return Candidate(
            measured=measured, quality=None, most_tokens=None, answer_tokens=ANSWER_TOKENS
        )
    behind = [
        outcome.completion_tokens - outcome.thinking_tokens
        for outcome in outcomes
        if outcome.finish_reason == "stop"
    ]
    return Candidate(
        measured=measured,
        quality=mean_score(measured),
        most_tokens=_most([outcome.completion_tokens for outcome in outcomes]),
        answer_tokens=_most(behind) if behind else ANSWER_TOKENS,
    )


def candidates_of(manifest: Manifest, quality: Quality | None) -> tuple[Candidate, ...]:
    """The points that were measured and not beaten, else those that are assumed, the best first."""
    if quality is None:
        points = (MeasuredPoint(point=point, outcomes=()) for point in assumed_points(manifest))
        return tuple(map(candidate_of, points))
    racing = (entry for entry in quality.points if entry.beaten_by is None and entry.outcomes)
    return tuple(map(candidate_of, racing))


def assumed_points(manifest: Manifest) -> list[OperatingPoint]:
    """Resolutions and keeps by the first selector there is: more tokens, then more pixels, first.

    A text model has one point.
    """
    tower = manifest.tower
    if manifest.vision is None or tower is None:
        return [OperatingPoint()]

    def points() -> Iterator[tuple[int, int, OperatingPoint]]:
        selector = next(iter(manifest.selectors), None)
        for resolution in manifest.vision.resolutions if manifest.vision else ():
            available = tower.most_tokens(resolution)
            for keep in (None, *KEEPS) if selector else (None,):
                kept = available if keep is None else keep_count(keep, available)
                method = None if keep is None else selector
                point = OperatingPoint(selector=method, keep=keep, resolution=resolution)
                yield kept, resolution, point

    return [point for *_, point in sorted(points(), key=lambda row: row[:2], reverse=True)]


def unpruned(manifest: Manifest) -> OperatingPoint:
    """Everything, at the highest resolution: what all others are held against."""
    vision = manifest.vision
    return OperatingPoint(resolution=None if vision is None else max(vision.resolutions))


def _most(lengths: Sequence[int]) -> int:
    """What LONGEST_ANSWER of `lengths` do not exceed."""
    return sorted(lengths)[ceil(LONGEST_ANSWER * len(lengths)) - 1]
