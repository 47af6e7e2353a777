"""What does a tower in int8 cost and save? Two bundles of one checkpoint on one task, in pairs.

    python benchmarks/towers.py fp32.bundle int8.bundle TASK [--questions N]

Accuracy: every question is asked of both; the difference in points with the 95 % interval of a
bootstrap over pictures. Time: graph vision on one picture, in turn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from conditions import Condition, difference, in_turn
from measuring import interleaved, record, spread
from table import in_order

import tightrope as tr
from tightrope.profiles.task.task import read_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plain")
    parser.add_argument("rounded")
    parser.add_argument("task", type=Path)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=15)
    given = parser.parse_args()
    items = tuple(in_order(read_task(given.task).items)[: given.questions])
    bundles = {"fp32": given.plain, "int8": given.rounded}
    wanted = [Condition(name=name, bundle=path, items=items) for name, path in bundles.items()]
    found = {way.name: (told, right) for way, told, right in in_turn(wanted, given.processes)}
    models = {name: tr.load(path, live=False) for name, path in bundles.items()}
    picture = np.random.default_rng(0).integers(0, 256, (480, 480, 3), np.uint8)
    times: dict[str, list[float]] = {name: [] for name in models}

    def see(name: str) -> None:
        models[name].forget_images()
        answer = models[name].generate("?", [picture], max_tokens=1)
        times[name].append(answer.timings.vision_ms)

    interleaved({name: lambda name=name: see(name) for name in models}, given.repetitions)
    record(
        "towers",
        {
            "questions": len(items),
            "accuracy": {name: told["overall"] for name, (told, _) in found.items()},
            "int8 - fp32": difference(items, found["int8"][1], found["fp32"][1]),
            "vision ms": {name: spread(several[1:]) for name, several in times.items()},
            "gate": {
                name: model.bundle.manifest.to_dict()["tower_int8"]
                for name, model in models.items()
            },
        },
    )


if __name__ == "__main__":
    main()
