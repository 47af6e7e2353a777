"""Whether methods can be told apart in a crowd, and caps on thought by counts.

tightrope task make --kind crowded -o crowded --images 130
tightrope task make -o counts --images 200 --level hard --type count
python benchmarks/mix.py mix.bundle crowded counts

README.md says how the bundle is made. Intervals come from drawing pictures, with all their
questions, again and again.
"""

from __future__ import annotations

import argparse
import functools
from itertools import pairwise
from pathlib import Path
from typing import Any

from conditions import Condition, difference, in_turn
from measuring import record
from table import METHODS

import tightrope as tr
from tightrope.profiles.task.score_config import ScoreConfig
from tightrope.profiles.task.task import Task, read_task

CROWDED_KEEP = "12.5%"
CAPS = (0, 1, 2, 4, 8, 12, 16, 24, 32, 48, None)
"""Tokens that a thought may have; None leaves it to the model."""


def on_crowded(bundle: str, task: Task, processes: int) -> dict[str, Any]:
    asked = functools.partial(Condition, bundle=bundle, items=task.items)
    wanted = [asked(name="all")]
    for method in ("random", *METHODS):
        point = tr.OperatingPoint(selector=method, keep=CROWDED_KEEP)
        wanted.append(asked(name=method, config=ScoreConfig(point=point)))
    wanted.append(asked(name="oracle", oracle=CROWDED_KEEP))
    told, right = {}, {}
    for condition, about, found in in_turn(wanted, processes):
        told[condition.name], right[condition.name] = about, found
    ranked = sorted(METHODS, key=lambda name: told[name]["overall"]["accuracy"])
    return {
        "keep": CROWDED_KEEP,
        "conditions": told,
        "against_all": {
            name: difference(task.items, found, right["all"]) for name, found in right.items()
        },
        "best_against_worst": {
            "methods": [ranked[-1], ranked[0]],
            **difference(task.items, right[ranked[-1]], right[ranked[0]]),
        },
    }


def on_counts(bundle: str, task: Task, processes: int) -> dict[str, Any]:
    """Accuracy by the cap on the thought, and the gain from each cap to the next."""
    wanted = [
        Condition(
            name="free" if cap is None else str(cap),
            bundle=bundle,
            items=task.items,
            config=ScoreConfig(point=tr.OperatingPoint(thinking_tokens=cap)),
        )
        for cap in CAPS
    ]
    told, right = {}, {}
    for condition, about, found in in_turn(wanted, processes):
        told[condition.name], right[condition.name] = about, found
    names = [condition.name for condition in wanted]
    return {
        "caps": {name: told[name] for name in names},
        "gains": {
            f"{less} -> {more}": difference(task.items, right[more], right[less])
            for less, more in pairwise(names)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("crowded", type=Path)
    parser.add_argument("counts", type=Path, help="counts, to see what their thought is worth")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    counts, crowded = (read_task(path) for path in (given.counts, given.crowded))
    figures = {
        "thought": on_counts(given.bundle, counts, given.processes),
        "crowded": on_crowded(given.bundle, crowded, given.processes),
    }
    record("mix", figures)


if __name__ == "__main__":
    main()
