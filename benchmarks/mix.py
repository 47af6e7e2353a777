"""Whether operating points and methods can be told apart: on the mix, in a crowd, by thought.

tightrope task make --kind mix -o mix --images 640
tightrope task make --kind crowded -o crowded --images 220
tightrope task make --kind board -o board --images 260 --type count
python benchmarks/mix.py mix.bundle mix crowded board

README.md says how the bundle is made. Work is predicted from sizes alone: multiplications of the
tower and of prefill. Intervals come from drawing pictures, with all their questions, again and
again.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from conditions import Condition, difference, in_turn
from measuring import record

import tightrope as tr
from tightrope.profiles.task.score_config import ScoreConfig
from tightrope.profiles.task.task import Task, read_task

RESOLUTIONS = (336, 224, 168)
METHODS = ("visionzip", "divprune", "flashvlm")
KEPT = ("50%", "25%", "12.5%", "6.25%")
CROWDED_KEEP = "12.5%"
CAPS = (0, 1, 2, 4, 8, 12, 16, 24, 32, 48, None)
"""Tokens that a thought may have; None leaves it to the model."""
CLEAR_POINTS = 2.0
"""By which points of a frontier have to differ to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """An operating point as the frontier names it."""

    resolution: int
    selector: str | None = None
    keep: str | None = None

    @property
    def name(self) -> str:
        kept = "all" if self.selector is None else f"{self.selector} {self.keep}"
        return f"{self.resolution} px, {kept}"

    @property
    def config(self) -> ScoreConfig:
        point = tr.OperatingPoint(
            resolution=self.resolution, selector=self.selector, keep=self.keep
        )
        return ScoreConfig(by=("kind",), point=point)


def ways() -> list[Way]:
    found = []
    for resolution in RESOLUTIONS:
        found.append(Way(resolution=resolution))
        found += [
            Way(resolution=resolution, selector=method, keep=keep)
            for method in METHODS
            for keep in KEPT
        ]
    return found


def work(way: Way, told: Mapping[str, Any]) -> float:
    """Millions of multiplications for one picture and its question, from sizes alone.

    The tower of the reference model has 5 layers that count, width 160 and MLP 512; its decoder 12
    layers, width 192 and MLP 448.
    """
    patches = (way.resolution // 14) ** 2
    tokens = told["visual_tokens_kept"] + 16
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


def on_the_mix(bundle: str, task: Task, processes: int) -> dict[str, Any]:
    every = {way.name: way for way in ways()}
    wanted = [
        Condition(name=name, bundle=bundle, items=task.items, config=way.config)
        for name, way in every.items()
    ]
    told, right = {}, {}
    for condition, about, found in in_turn(wanted, processes):
        told[condition.name], right[condition.name] = about, found
    accuracy = {name: 100 * about["overall"]["accuracy"] for name, about in told.items()}
    works = {name: work(way, told[name]) for name, way in every.items()}
    best = frontier((name, works[name], accuracy[name]) for name in every)
    steps = apart(best, accuracy)
    return {
        "questions": len(task.items),
        "points": {
            name: {**told[name], "million_multiplications": round(works[name], 1)} for name in every
        },
        "frontier": best,
        "clearly_apart": steps,
        "steps": {
            f"{less} -> {more}": difference(task.items, right[more], right[less])
            for less, more in pairwise(steps)
        },
    }


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
    parser.add_argument("mix", type=Path)
    parser.add_argument("crowded", type=Path)
    parser.add_argument("counts", type=Path, help="counts, to see what their thought is worth")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    counts, crowded, mix = (read_task(path) for path in (given.counts, given.crowded, given.mix))
    record(
        "mix",
        {
            "thought": on_counts(given.bundle, counts, given.processes),
            "crowded": on_crowded(given.bundle, crowded, given.processes),
            "mix": on_the_mix(given.bundle, mix, given.processes),
        },
    )


if __name__ == "__main__":
    main()
