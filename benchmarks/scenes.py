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
import multiprocessing
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record
from PIL import Image

import tightrope as tr
from tightrope.arrays import Indices
from tightrope.bundle import Bundle
from tightrope.profiles.task.score import score_task
from tightrope.profiles.task.score_config import ScoreConfig
from tightrope.profiles.task.tally import Tally
from tightrope.profiles.task.task import Item, Task, read_task
from tightrope.runtime.backends import create_backend
from tightrope.runtime.baselines import Baseline

RESAMPLES = 4000
RESOLUTIONS = (336, 224, 168)
KEPT = ("25%", "12.5%")
METHODS = ("uniform", "visionzip", "divprune", "flashvlm", "fastv")
THOUGHTFUL = ("count", "comparison")
UNTRAINED, UNTRAINED_TOKENS = 300, 72
"""Questions, and as many tokens as the longest answer has; an untrained model never ends one."""


class Oracle:
    """Keeps the patches of what a question names, which no method can know, and fills up at random.

    It says how much a selector could win; that is why it stays here.
    """

    def __init__(self) -> None:
        self.item: Item | None = None
        """The question that is asked next."""

    def indices(self, num_images: int, available: int, keep: int, seed: int) -> Indices:
        """Kept patches of the item's picture, [1,K] ascending."""
        assert self.item is not None and num_images == 1
        info, side = self.item.info, round(available**0.5)
        covered = [_cover(box, info["pixels"], side) for box in info["about"]]
        order: dict[int, None] = {}
        for turn in range(available):
            for patches in covered:
                if turn < len(patches):
                    order[patches[turn]] = None
        rng = np.random.default_rng(info["scene"])
        order |= dict.fromkeys(int(patch) for patch in rng.permutation(available))
        return np.sort(np.array(list(order)[:keep]))[None]


ORACLE = Oracle()


def _cover(box: Sequence[float], pixels: int, side: int) -> list[int]:
    """Patches that a box touches, those first of which it covers most."""
    edges = np.arange(side) * (pixels / side)
    end = edges + pixels / side
    across = np.clip(np.minimum(end, box[2]) - np.maximum(edges, box[0]), 0, None)
    down = np.clip(np.minimum(end, box[3]) - np.maximum(edges, box[1]), 0, None)
    area = (down[:, None] * across[None]).reshape(-1)
    ranked = np.argsort(-area, kind="stable")
    return [int(patch) for patch in ranked[: int((area > 0).sum())]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Questions that are asked in one way."""

    name: str
    bundle: str
    items: tuple[Item, ...]
    config: ScoreConfig = field(default_factory=ScoreConfig)
    oracle: str | None = None
    """Share of the tokens that the oracle keeps."""


@functools.cache
def loaded(bundle: str) -> tr.Model:
    """Once a process; each has one thread."""
    opened = Bundle.open(bundle)
    oracle = Baseline(name="oracle", paper="what the question names", indices=ORACLE.indices)
    backend = create_backend("auto", opened, threads=1)
    return tr.Model(opened, backend, selectors={oracle.name: oracle})


def measure(condition: Condition) -> tuple[dict[str, Any], dict[str, float]]:
    """What is told of a condition, and how right each item was."""
    model = loaded(condition.bundle)
    if condition.oracle is None:
        report = score_task(model, Task(folder=Path(), items=condition.items), condition.config)
        values = report.to_dict()
        told = {name: values[name] for name in ("overall", "types", "by", "visual_tokens_kept")}
        return told, {record.id: record.right or 0.0 for record in report.records}
    right = {}
    point = tr.OperatingPoint(selector="oracle", keep=condition.oracle)
    config = replace(condition.config, point=point)
    for item in condition.items:
        ORACLE.item = item
        report = score_task(model, Task(folder=Path(), items=(item,)), config)
        right[item.id] = report.overall.right
    return {"overall": Tally(n=len(right), right=sum(right.values())).to_dict()}, right


def difference(
    items: Sequence[Item], right: Mapping[str, float], other: Mapping[str, float]
) -> dict[str, Any]:
    """Mean of right - other over the ids of `right`, in points, with the 95 % interval of a
    bootstrap over pictures."""
    groups: dict[Any, list[float]] = defaultdict(list)
    for item in items:
        if item.id in right:
            groups[item.images or item.id].append(right[item.id] - other[item.id])
    sums = np.array([sum(group) for group in groups.values()])
    counts = np.array([len(group) for group in groups.values()])
    draws = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = 100 * sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    mean = 100 * sums.sum() / counts.sum()
    return {"points": round(mean, 2), "interval": [round(low, 2), round(high, 2)]}


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
    off = ScoreConfig(by=by, thinking="off")
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
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(given.processes, context) as pool,
    ):
        grey = Path(folder) / "grey.png"
        Image.new("RGB", (336, 336), (128, 128, 128)).save(grey)
        wanted = conditions(given.bundle, given.untrained, task, given.pruned, grey)
        for condition, found in zip(wanted, pool.map(measure, wanted), strict=True):
            name = condition.name
            told[name], right[name] = found
            overall = told[name]["overall"]
            print(f"{name}: {overall['accuracy']:.4f} of {overall['n']}", flush=True)

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
