"""How well the reference model sees, and whether its task tells good pruning from bad.

tightrope task make -o scenes --images 220
python benchmarks/scenes.py scenes.bundle untrained.bundle scenes

README.md says how the bundles are made. Selectors are compared question by question with those that
keep as many tokens at random; intervals come from drawing pictures, with all their questions, again
and again.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from conditions import Condition, difference, in_turn
from measuring import record
from PIL import Image

import tightrope as tr
from tightrope.profiles.task.score_config import ScoreConfig
from tightrope.profiles.task.task import Task, read_task

RESOLUTIONS = (336, 224, 168)
KEPT = ("25%", "12.5%")
METHODS = ("uniform", "visionzip", "divprune", "flashvlm", "fastv")
THOUGHTFUL = ("count", "comparison")
UNTRAINED, UNTRAINED_TOKENS = 300, 72
"""Questions, and as many tokens as the longest answer has; an untrained model never ends one."""


def conditions(bundle: str, untrained: str, task: Task, pruned: int, grey: Path) -> list[Condition]:
    by = ("level",)
    seen = tuple(item for item in task.items if item.images)
    asked = functools.partial(Condition, bundle=bundle)
    found = []
    for resolution in RESOLUTIONS:
        config = ScoreConfig(by=by, point=tr.OperatingPoint(resolution=resolution))
        found.append(asked(name=f"{resolution} px", items=task.items, config=config))
    blank = tuple(replace(item, images=(grey,)) for item in seen)
    found.append(asked(name="grey picture", items=blank, config=ScoreConfig(by=by)))
    thoughtful = tuple(item for item in seen if item.type in THOUGHTFUL)
    off = ScoreConfig(by=by, thinking=False)
    found.append(asked(name="empty thought", items=thoughtful, config=off))
    short = ScoreConfig(by=by, max_tokens=UNTRAINED_TOKENS)
    items = task.items[:UNTRAINED]
    found.append(Condition(name="untrained", bundle=untrained, items=items, config=short))
    for keep in KEPT:
        for method in ("random", *METHODS):
            point = tr.OperatingPoint(selector=method, keep=keep)
            config = ScoreConfig(by=by, point=point)
            found.append(asked(name=f"{method} {keep}", items=seen[:pruned], config=config))
    found.append(asked(name="oracle 12.5%", items=seen[:pruned], oracle="12.5%"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("untrained", help="a bundle of the same model before its training")
    parser.add_argument("task", type=Path)
    parser.add_argument("--pruned", type=int, default=1000, help="questions asked with pruning")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    task = read_task(given.task)
    told: dict[str, Any] = {}
    right: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        grey = Path(folder) / "grey.png"
        Image.new("RGB", (336, 336), (128, 128, 128)).save(grey)
        wanted = conditions(given.bundle, given.untrained, task, given.pruned, grey)
        for condition, about, found in in_turn(wanted, given.processes):
            told[condition.name], right[condition.name] = about, found

    everything = right["336 px"]
    against_random = {
        f"{method} {keep}": difference(
            task.items, right[f"{method} {keep}"], right[f"random {keep}"]
        )
        for keep in KEPT
        for method in METHODS
    }
    record(
        "scenes",
        {
            "questions": len(task.items),
            "small": sum(item.info.get("smallest", 45) < 45 for item in task.items),
            "conditions": told,
            "against_everything": {
                name: difference(task.items, found, everything) for name, found in right.items()
            },
            "against_random": against_random,
        },
    )


if __name__ == "__main__":
    main()
