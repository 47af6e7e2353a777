"""The demo's last part: what points are worth and take here, and three deadlines kept with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from tightrope.cli.frontier import print_frontier
from tightrope.cli.output import print_table, progress_on_terminal
from tightrope.errors import ProfileError
from tightrope.point import in_words
from tightrope.runtime.plan import why

if TYPE_CHECKING:
    from tightrope.profiles.frontier.frontier import Frontier
    from tightrope.profiles.task.task import Item, Task
    from tightrope.runtime.answer import Answer
    from tightrope.runtime.model import Model

LATENCY_MINUTES, QUALITY_MINUTES = 0.6, 1.2
POINTS = 16
MAX_TOKENS = 48
SPARE = 1.1
"""The shortest and the longest deadline, over what the fastest and the slowest point need."""


def show_deadlines(model: Model, task: Task, questions: Sequence[Item]) -> None:
    """Measure for two minutes, then answer the same questions under three deadlines."""
    from tightrope.profiles.frontier.join import make_frontier
    from tightrope.profiles.frontier.typical import typical

    _measure(model, task)
    item = questions[0]
    frontier = make_frontier(
        model, typical(model, item.messages[-1]["content"], item.images), task=None
    )
    print()
    print_frontier(frontier)
    rows = []
    for deadline in _deadlines(frontier):
        answers = _ask(model, questions, deadline)
        rows.append((f"{deadline:.0f} ms", *_told(answers, questions)))
    print_table(
        f"\nThe same {len(questions)} questions under three deadlines",
        ("deadline", "chosen", "why", "right", "in time", "ms"),
        rows,
        numbers=("right", "in time", "ms"),
    )
    print("ms: median from submission to the last token.")


def _measure(model: Model, task: Task) -> None:
    """Both halves, unless an earlier run measured them; a race goes on where it was."""
    from tightrope.latency_file import read_latency, write_latency
    from tightrope.profiles.latency.config import LatencyConfig
    from tightrope.profiles.latency.profile import profile_latency
    from tightrope.profiles.quality.config import QualityConfig
    from tightrope.profiles.quality.profile import profile_quality
    from tightrope.runtime.key import latency_key
    from tightrope.state import held

    print("\nMeasuring what points are worth and what they take here: two minutes at most")
    with held(model.bundle.path), progress_on_terminal() as progress:
        try:
            read_latency(model.bundle, latency_key(model.bundle, model.backend))
        except ProfileError:
            config = LatencyConfig(minutes=LATENCY_MINUTES)
            write_latency(model.bundle, profile_latency(model, config, progress=progress))
        race = QualityConfig(points=POINTS, minutes=QUALITY_MINUTES, max_tokens=MAX_TOKENS)
        profile_quality(model, task, race, progress=progress)


def _deadlines(frontier: Frontier) -> tuple[float, float, float]:
    """Just enough for the fastest point and for the slowest, and between."""
    needed = [row.took.total.p99_ms for row in frontier.rows if row.took is not None]
    low, high = SPARE * min(needed), SPARE * max(needed)
    return low, (low * high) ** 0.5, high


def _ask(model: Model, questions: Sequence[Item], deadline_ms: float) -> list[Answer]:
    from tightrope.budget import Budget

    model.warm_up()
    budget = Budget(deadline_ms=deadline_ms, if_unreachable="best_effort")
    answers = []
    for item in questions:
        model.forget_images()
        answers.append(
            model.generate(item.messages, item.images, max_tokens=MAX_TOKENS, budget=budget)
        )
    return answers


def _told(answers: Sequence[Answer], questions: Sequence[Item]) -> tuple[str, ...]:
    from tightrope.profiles.task.score import rightness

    right = sum(
        rightness(item, answer.text) or 0.0 for item, answer in zip(questions, answers, strict=True)
    )
    plans = [answer.plan for answer in answers if answer.plan is not None]
    (often, _), *_ = Counter(plan.point for plan in plans).most_common(1)
    plan = next(plan for plan in plans if plan.point == often)
    held = sum(bool(answer.deadline_met) for answer in answers)
    return (
        in_words(often),
        why(plan),
        f"{right:g}",
        f"{held} of {len(answers)}",
        f"{median(answer.timings.total_ms for answer in answers):.0f}",
    )
