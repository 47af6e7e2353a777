"""What a plan is made for, what was planned, and what is said of it in the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tightrope.budget import Budget
from tightrope.latency import SourceImage
from tightrope.point import OperatingPoint
from tightrope.runtime.marks import UNCUT, Beginnings

if TYPE_CHECKING:  # what a plan says is printed without numpy
    from tightrope.runtime.begun import Begun

QualitySource = Literal["measured", "assumed"]
"""assumed: nothing was measured of the bundle; more tokens and more pixels are taken for better."""

CHOSEN_BY = 99
"""Percentile of a point's time by which it is chosen."""
ADMITTED_BY = 90
"""And by which the fastest is taken on an idle device where no point is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a plan is made for."""

    budget: Budget
    token_ids: tuple[int, ...]
    """The prompt, images as one token each."""
    images: tuple[SourceImage, ...]
    max_tokens: int
    rows: int = 1
    """Answers that are decoded together."""
    thinking: bool | None = None
    point: OperatingPoint | None = None
    """The caller's own choice."""
    beginnings: Beginnings = UNCUT
    """Of the prompt, and what is kept of it."""
    begun: Begun | None = None
    """What the slots of its conversation hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Milliseconds from submission, in which so many of a hundred such requests are done."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatPlan:
    """What a ceiling over heat made of a plan."""

    hottest_c: float | None
    """Now; None: not limited, or no zone could be read, which counts as too hot."""
    watts: float | None
    """Of the point, as requests come now; None where nobody measured what points draw."""
    allowed_watts: float | None
    """None: any."""
    left_out: int
    """Points that fit the budget and draw too much."""
    price: float | None
    """Measured quality that this costs: what would be chosen without a ceiling has so much more.

    None where quality is assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was chosen, and why."""

    point: OperatingPoint
    quality: float | None
    """Measured, 0..1; None where it is assumed."""
    quality_source: QualitySource
    task: str | None
    """By whose questions quality and lengths of answers were measured."""
    completion_tokens: int
    """Counted on: `max_tokens`, or what 99 of 100 answers to such prompts do not exceed here."""
    cached_tokens: int
    """Counted on: those of the prompt in slots that are kept of earlier requests."""
    ttft: Expected
    total: Expected
    waiting_ms: float
    """Of these, for requests that were submitted before."""
    speed: float
    """What requests take now, as a multiple of when the latency file was made."""
    fitting: int
    """Points that met the budget in 99 of 100 requests; 0 where the fastest does in 90."""
    alike: int
    """Of these, those that could not be told from the best."""
    points: int
    """All that were looked at."""
    best_effort: bool
    """Whether none met the budget, and the cheapest was taken."""
    energy_j: float | None = None
    """Joules that are expected; None where nobody measured what requests draw."""
    heat: HeatPlan | None = None
    """None without a ceiling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A plan, and what its guard goes by."""

    plan: Plan
    token_ms: float
    """Of one step, at the present pace."""
    call_ms: float
    """Of the longest call, in 99 of 100 requests: so long nobody else has the device."""
    answer_tokens: int
    """That an answer behind a thought takes."""


def why(plan: Plan) -> str:
    """How the point came to be chosen."""
    if plan.best_effort:
        return f"the cheapest: none of {plan.points} points meets the budget"
    if not plan.fitting:
        likely = f"in time in {ADMITTED_BY} of 100 requests, not in {CHOSEN_BY}"
        return f"the fastest of {plan.points} points: {likely}"
    fitting = f"{plan.fitting} of {plan.points} points fit"
    if plan.quality is None or plan.alike == 1:
        return f"{fitting}: the best"
    return f"{fitting}, {plan.alike} as good as the best: the fastest of those"
