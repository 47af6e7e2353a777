"""How hard may a kind of task become before the reference model, unpruned, falls below 90 %?

python benchmarks/ladders.py mix.bundle

Each kind whose levels are numbers is drawn on a ladder of levels, split test, and answered with all
visual tokens at 336 pixels. The usual level of a kind (`tightrope/profiles/scenes/kinds.py`) is the
hardest that it answers 90 % of.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from conditions import Condition, in_turn
from measuring import record

import tightrope as tr
from tightrope.profiles.scenes.make_config import MakeConfig
from tightrope.profiles.scenes.making import make_task
from tightrope.profiles.task.score_config import ScoreConfig
from tightrope.profiles.task.task import read_task

LADDERS = {
    "crowded": (12, 16, 20, 24, 28, 32, 36, 40),
    "fine": (14, 12, 11, 10, 9, 8, 7),
    "background": (40, 24, 16, 12, 8, 6),
    "several": (2, 3, 4),
    "board": (4, 6, 8, 12, 16),
}
"""From easy to hard."""
SEED = 5
PASSED = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--kinds", nargs="+", choices=LADDERS, default=list(LADDERS))
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wanted = []
        for kind in given.kinds:
            for level in LADDERS[kind]:
                config = MakeConfig(kind=kind, level=level, images=given.scenes, seed=SEED)
                target = Path(folder) / f"{kind}-{level}"
                make_task(config, target)
                wanted.append(
                    Condition(
                        name=f"{kind} {level}",
                        bundle=given.bundle,
                        items=read_task(target).items,
                        config=ScoreConfig(point=tr.OperatingPoint(resolution=336)),
                    )
                )
        told = {
            condition.name: {name: about[name] for name in ("overall", "types")}
            for condition, about, _ in in_turn(wanted, given.processes)
        }
    record("ladders", {"scenes": given.scenes, "levels": told, "hardest": hardest(told)})


def hardest(told: dict[str, Any]) -> dict[str, int | None]:
    """Of each kind the last level up to which every one passed."""
    found: dict[str, int | None] = {}
    for kind, levels in LADDERS.items():
        found[kind] = None
        for level in levels:
            about = told.get(f"{kind} {level}")
            if about is None or about["overall"]["accuracy"] < PASSED:
                break
            found[kind] = level
    return found


if __name__ == "__main__":
    main()
