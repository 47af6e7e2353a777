"""How much accuracy does a planner get out of a deadline? Replayed from a table of all answers.

python benchmarks/planning.py mix.bundle mix mix.table.jsonl

The table (`table.py`) knows what every point answers to every question, and how long it takes.
Whoever chooses a point gets its answer if it came in time, and nothing if it did not. Compared, on
questions that none of them was fitted to:

    planner        the product's: chooses for each request, learns the pace from what it sees
    per deadline   in hindsight, the best single point of each deadline
    one point      in hindsight, the best single point over all deadlines
    TimeBill       a fixed model in its manner: everything but the ratio of eviction stays as it is
    oracle         per request: right if any point that came in time was right

Needs the latency file of the bundle: `tightrope profile mix.bundle --latency-only`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record
from points import apart, frontier
from table import MAX_TOKENS, Row, Table, in_order, read_table

import tightrope as tr
from tightrope.arrays import Floats
from tightrope.latency_file import read_latency
from tightrope.profiles.task.task import Item, read_task
from tightrope.quality_file import MeasuredPoint, Outcome, Quality, QualityKey
from tightrope.runtime.images import image_header
from tightrope.runtime.key import latency_key
from tightrope.runtime.plan import Asked
from tightrope.runtime.planner import Planner
from tightrope.runtime.settings import resolve
from tightrope.runtime.workload import work_of

DEADLINES = 10
RESAMPLES = 4000
LEAST_POINTS = 5
Choose = Callable[[Item, float], Row | None]
"""The row of what was chosen for a question and a deadline; None for a refusal."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("task", type=Path)
    parser.add_argument("table", type=Path)
    given = parser.parse_args()
    table = read_table(given.table)
    asked = set.intersection(*(set(rows) for rows in table.values()))
    items = [item for item in in_order(read_task(given.task).items) if item.id in asked]
    check_apart(table)
    deadlines = deadlines_of(table)
    halves = items[::2], items[1::2]
    won: dict[str, list[Floats]] = {}
    spent_us: list[float] = []
    for learnt, scored in (halves, halves[::-1]):
        model = tr.load(given.bundle, live=False)
        players = players_of(model, table, learnt, deadlines, spent_us)
        for name, choose in players.items():
            won.setdefault(name, []).append(played(choose, scored, deadlines))
    rights = {name: np.concatenate(parts, 1) for name, parts in won.items()}
    figures = told(rights, deadlines, len(items))
    figures["planning_us"] = {
        "mean": round(float(np.mean(spent_us)), 1),
        **{f"p{at}": round(float(np.percentile(spent_us, at)), 1) for at in (50, 95, 99)},
    }
    record("planning", figures)


def check_apart(table: Table) -> None:
    """A table whose points do not differ tells nothing of a planner."""
    accuracy = {str(p): 100 * mean(rows, "score") for p, rows in table.items()}
    works = [(str(p), mean(rows, "total_ms"), accuracy[str(p)]) for p, rows in table.items()]
    clear = apart(frontier(works), accuracy)
    if len(clear) < LEAST_POINTS:
        raise SystemExit(f"only {len(clear)} points are non-dominated and clearly apart: {clear}")


def mean(rows: Mapping[str, Row], field: str) -> float:
    return float(np.mean([getattr(row, field) for row in rows.values()]))


def deadlines_of(table: Table) -> list[float]:
    """Evenly between 1.2 x the p95 of the fastest point and the p50 of the slowest."""
    times = [np.array([row.total_ms for row in rows.values()]) for rows in table.values()]
    times.sort(key=lambda found: float(np.median(found)))
    low, high = 1.2 * np.percentile(times[0], 95), np.median(times[-1])
    if not low < high:
        raise SystemExit(f"no deadline lies between {low:.0f} and {high:.0f} ms")
    return [float(value) for value in np.linspace(low, high, DEADLINES)]


def players_of(
    model: tr.Model,
    table: Table,
    learnt: Sequence[Item],
    deadlines: Sequence[float],
    spent_us: list[float],
) -> dict[str, Choose]:
    best = {deadline: best_point(table, learnt, [deadline]) for deadline in deadlines}
    single = best_point(table, learnt, deadlines)
    return {
        "planner": planned(model, table, learnt, spent_us),
        "per deadline": lambda item, deadline: table[best[deadline]][item.id],
        "one point": lambda item, deadline: table[single][item.id],
        "TimeBill": timebill(table, learnt),
        "oracle": lambda item, deadline: max(
            (rows[item.id] for rows in table.values()), key=lambda row: worth(row, deadline)
        ),
    }


def worth(row: Row | None, deadline: float) -> float:
    """How right an answer is that came in time."""
    return 0.0 if row is None or row.total_ms > deadline else row.score


def best_point(
    table: Table, items: Sequence[Item], deadlines: Sequence[float]
) -> tr.OperatingPoint:
    return max(
        table,
        key=lambda point: sum(
            worth(table[point][item.id], deadline) for item in items for deadline in deadlines
        ),
    )


def planned(model: tr.Model, table: Table, learnt: Sequence[Item], spent_us: list[float]) -> Choose:
    """The product's planner, over the questions of the other half; each choice adds its time."""
    loaded = model._loaded
    latency = read_latency(loaded.bundle, latency_key(loaded.bundle, loaded.backend))
    planner = Planner(loaded, latency, quality_of(model, table, learnt))
    asked: dict[str, Asked] = {}

    def choose(item: Item, deadline: float) -> Row | None:
        if item.id not in asked:
            asked[item.id] = Asked(
                budget=tr.Budget(deadline_ms=deadline),
                token_ids=prompt_of(model, item),
                images=tuple(map(image_header, item.images)),
                max_tokens=MAX_TOKENS,
            )
        known = replace(asked[item.id], budget=tr.Budget(deadline_ms=deadline))
        started = time.perf_counter()
        try:
            point = planner.choose(known).plan.point
        except tr.BudgetUnreachable:
            return None
        spent_us.append(1e6 * (time.perf_counter() - started))
        row = table[point][item.id]
        settings = resolve(point, loaded.manifest, loaded.baselines)
        prompt = len(known.token_ids)
        work = work_of(loaded, prompt, known.images, settings, row.completion_tokens).work
        planner.record(row.ttft_ms, row.total_ms, planner.model.stages(work))
        return row

    return choose


def prompt_of(model: tr.Model, item: Item) -> tuple[int, ...]:
    return tuple(model.token_ids(item.messages, len(item.images)))


def quality_of(model: tr.Model, table: Table, items: Sequence[Item]) -> Quality:
    """What a profile over these questions would have written."""
    return Quality(
        key=QualityKey(
            bundle="", task="", task_name="mix", measure="accuracy", max_tokens=MAX_TOKENS
        ),
        prompts={item.id: prompt_of(model, item) for item in items},
        points=tuple(
            MeasuredPoint(
                point=point,
                outcomes=tuple(
                    Outcome(
                        question=item.id,
                        score=rows[item.id].score,
                        text=rows[item.id].text,
                        completion_tokens=rows[item.id].completion_tokens,
                        thinking_tokens=rows[item.id].thinking_tokens,
                        finish_reason=rows[item.id].finish_reason,
                    )
                    for item in items
                ),
            )
            for point, rows in table.items()
        ),
    )


def timebill(table: Table, learnt: Sequence[Item]) -> Choose:
    """The least eviction whose p99 time over the learnt questions meets the deadline.

    In the manner of TimeBill (arXiv 2512.21859): the model, its pictures and tokens are given, a
    predicted time chooses one ratio of eviction. Its predictors are trained; here the time of each
    ratio is known from the other half of the questions.
    """
    most = max(point.resolution or 0 for point in table)
    ratios = [point for point in table if point.resolution == most and point.selector is None]
    ratios.sort(key=lambda point: -(point.kv_budget or 10**9))  # type: ignore[operator]
    times = {
        point: np.percentile([table[point][item.id].total_ms for item in learnt], 99)
        for point in ratios
    }

    def choose(item: Item, deadline: float) -> Row:
        fits = [point for point in ratios if times[point] <= deadline]
        return table[(fits or ratios[-1:])[0]][item.id]

    return choose


def played(choose: Choose, items: Sequence[Item], deadlines: Sequence[float]) -> Floats:
    """What was right in time, [deadlines, questions]."""
    return np.array(
        [[worth(choose(item, deadline), deadline) for item in items] for deadline in deadlines]
    )


def told(rights: Mapping[str, Floats], deadlines: Sequence[float], count: int) -> dict[str, Any]:
    accuracy = {name: 100 * found.mean(1) for name, found in rights.items()}
    overall = {name: float(found.mean()) for name, found in accuracy.items()}
    gained = overall["planner"] - overall["one point"]
    possible = overall["per deadline"] - overall["one point"]
    behind = [
        interval(rights["per deadline"][at] - rights["planner"][at]) for at in range(len(deadlines))
    ]
    return {
        "questions": count,
        "deadlines_ms": [round(deadline, 1) for deadline in deadlines],
        "accuracy_percent": {name: found.round(2).tolist() for name, found in accuracy.items()},
        "over_all_deadlines": {name: round(value, 2) for name, value in overall.items()},
        "planner_behind_per_deadline_points": behind,
        "share_of_what_hindsight_gains_percent": round(100 * gained / possible, 1)
        if possible > 0
        else None,
        "planner_over": {
            name: interval((rights["planner"] - rights[name]).mean(0))
            for name in ("one point", "TimeBill")
        },
    }


def interval(differences: Floats) -> dict[str, float]:
    """Mean of paired differences [N] in points, with the 95 % interval of a bootstrap."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(differences), (RESAMPLES, len(differences)))
    low, high = np.quantile(differences[draws].mean(1), [0.025, 0.975])
    points = (100 * float(value) for value in (differences.mean(), low, high))
    return dict(zip(("mean", "low", "high"), (round(value, 2) for value in points), strict=True))


if __name__ == "__main__":
    main()
