"""Which operating points are worth having on the mix? Accuracy against work, from a table.

python benchmarks/table.py mix.bundle mix mix.table.jsonl
python benchmarks/points.py mix mix.table.jsonl

Work is predicted from sizes alone: multiplications of the tower and of prefill. Intervals come from
drawing pictures, with all their questions, again and again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from conditions import difference
from measuring import record
from table import Table, read_table

import tightrope as tr
from tightrope.profiles.task.tally import tallies, tally
from tightrope.profiles.task.task import Task, read_task

CLEAR_POINTS = 2.0
"""By which points of a frontier have to differ to count."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", type=Path)
    parser.add_argument("table", type=Path)
    given = parser.parse_args()
    record("points", on_the_mix(read_table(given.table), read_task(given.task)))


def work(point: tr.OperatingPoint, kept: float) -> float:
    """Millions of multiplications for one picture and its question, from sizes alone.

    kept: visual tokens that enter the decoder. The tower of the reference model has 5 layers that
    count, width 160 and MLP 512; its decoder 12 layers, width 192 and MLP 448.
    """
    patches, tokens = ((point.resolution or 0) // 14) ** 2, kept + 16
    tower = 5 * patches * (4 * 160 * 160 + 2 * 160 * 512 + 2 * patches * 160)
    decoder = 12 * tokens * (2.67 * 192 * 192 + 3 * 192 * 448 + tokens * 192)
    return float(tower + decoder) / 1e6


def frontier(points: Iterable[tuple[str, float, float]]) -> list[str]:
    """Names of the points (name, work, accuracy) that no other beats at less work."""
    best, names = -1.0, []
    for name, _, accuracy in sorted(points, key=lambda point: (point[1], -point[2])):
        if accuracy > best:
            best = accuracy
            names.append(name)
    return names


def apart(names: Sequence[str], accuracy: Mapping[str, float]) -> list[str]:
    """The longest run of a frontier whose neighbours are more than CLEAR_POINTS apart."""
    kept: list[str] = []
    for name in reversed(names):
        if not kept or accuracy[kept[-1]] - accuracy[name] > CLEAR_POINTS:
            kept.append(name)
    return kept[::-1]


def name_of(point: tr.OperatingPoint) -> str:
    kept = "all" if point.selector is None else f"{point.selector} {point.keep}"
    return f"{point.resolution} px, {kept}"


def on_the_mix(table: Table, task: Task) -> dict[str, Any]:
    """Accuracy against work, from the table; budgets of slots save none of it and are left out."""
    every = {name_of(point): point for point in table if point.kv_budget is None}
    rows = {name: table[point] for name, point in every.items()}
    asked = [item for item in task.items if item.id in next(iter(rows.values()))]
    right = {
        name: {question: row.score for question, row in found.items()}
        for name, found in rows.items()
    }
    told = {name: tally(found.values()).to_dict() for name, found in right.items()}
    accuracy = {name: 100 * about["accuracy"] for name, about in told.items()}
    works = {
        name: work(point, float(np.mean([row.visual_tokens_kept for row in rows[name].values()])))
        for name, point in every.items()
    }
    best = frontier((name, works[name], accuracy[name]) for name in every)
    steps = apart(best, accuracy)
    kinds = [str(item.info.get("kind", item.type)) for item in asked]
    return {
        "questions": len(asked),
        "points": {
            name: {**told[name], "million_multiplications": round(works[name], 1)} for name in every
        },
        "kinds_at_everything": {
            kind: found.to_dict()
            for kind, found in tallies(
                kinds, [right[name_of(next(iter(table)))][item.id] for item in asked]
            ).items()
        },
        "frontier": best,
        "clearly_apart": steps,
        "steps": {
            f"{less} -> {more}": difference(asked, right[more], right[less])
            for less, more in pairwise(steps)
        },
    }


if __name__ == "__main__":
    main()
