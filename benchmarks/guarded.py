"""What comes of a thought that its deadline cuts short?

tightrope profile mix.bundle --task mix
tightrope task make -o long --images 260 --level hard --type count --type list
python benchmarks/guarded.py mix.bundle long

Every question is asked twice at everything: first without a deadline, then with one that lies
before the end of the first answer, anywhere behind what its prompt and a closed thought take. Told
is what the guard left of the answers that it touched: whether they say something that can be read,
in time, and how often it is right.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from measuring import record

import tightrope as tr
from tightrope.profiles.task.score import rightness
from tightrope.profiles.task.task import Item, read_task

MAX_TOKENS = 96
LEAST_SHARE = 0.25
"""Of the decoding time of the first answer, that a deadline leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question with too little time."""

    type: str
    touched: bool
    """Whether the guard closed the thought or ended the answer."""
    thought: bool
    """Whether there was a thought to close."""
    readable: bool
    late_percent: float
    """Of the deadline; below 0 in time."""
    right: float
    right_unhurried: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("task", type=Path)
    parser.add_argument("--questions", type=int, default=520)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = tr.load(given.bundle, live=False)
    model.warm_up()
    rng = np.random.default_rng(given.seed)
    items = list(read_task(given.task).items)
    rng.shuffle(items)  # type: ignore[arg-type]
    asked = [ask(model, item, rng) for item in items[: given.questions]]
    types = sorted({row.type for row in asked})
    record("guarded", {kind: told([row for row in asked if row.type == kind]) for kind in types})


def ask(model: tr.Model, item: Item, rng: np.random.Generator) -> Asked:
    everything = tr.OperatingPoint()
    free = model.generate(
        list(item.messages), images=item.images, max_tokens=MAX_TOKENS, point=everything
    )
    model.forget_images()
    share = rng.uniform(LEAST_SHARE, 0.95)
    deadline = free.timings.ttft_ms + share * (free.timings.total_ms - free.timings.ttft_ms)
    answer = model.generate(
        list(item.messages),
        images=item.images,
        max_tokens=MAX_TOKENS,
        point=everything,
        budget=tr.Budget(deadline_ms=deadline, if_unreachable="best_effort"),
    )
    right = rightness(item, answer.text)
    unhurried = rightness(item, free.text)
    assert right is not None and unhurried is not None
    return Asked(
        type=item.type or "",
        touched=answer.finish_reason == "deadline" or answer.usage.injected_tokens > 0,
        thought=free.usage.thinking_tokens > 0,
        readable=readable(item, answer.text),
        late_percent=100 * (answer.timings.total_ms / deadline - 1),
        right=right,
        right_unhurried=unhurried,
    )


def readable(item: Item, text: str) -> bool:
    """A number behind the thought where one is asked for, else any word."""
    said = text.rpartition("</think>")[2].strip()
    return said.isdigit() if item.type == "count" else bool(said)


def told(rows: Sequence[Asked]) -> dict[str, Any]:
    touched = [row for row in rows if row.touched]
    late = [row.late_percent for row in touched if row.late_percent > 0]
    return {
        "asked": len(rows),
        "thoughts": sum(row.thought for row in rows),
        "touched_by_the_guard": len(touched),
        "of_these_readable": sum(row.readable for row in touched),
        "of_these_in_time": sum(row.late_percent <= 0 for row in touched),
        "overshoot_percent_median": round(median(late), 1) if late else 0.0,
        "of_these_right_percent": percent([row.right for row in touched]),
        "right_percent_without_a_deadline": percent([row.right_unhurried for row in touched]),
    }


def percent(rights: Sequence[float]) -> float:
    return round(100 * float(np.mean(rights)), 1) if rights else 0.0


if __name__ == "__main__":
    main()
