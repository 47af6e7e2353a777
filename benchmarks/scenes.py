"""How well the reference model sees, and whether its task tells good pruning from bad.

tightrope task make -o scenes --images 220
python benchmarks/scenes.py reference.bundle scenes

The bundle needs the schedule fastv and the resolutions 168, 224 and 336. Selectors are compared
question by question with those that keep as many tokens at random; intervals come from drawing
pictures, with all their questions, again and again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record
from PIL import Image

import tightrope as tr
from tightrope.profiles.task.score import Report, ScoreConfig, score_task
from tightrope.profiles.task.task import Item, Task, read_task
from tightrope.runtime.sight import SeenImage

RESAMPLES = 4000
KEPT = ("50%", "25%", "12.5%")
METHODS = ("uniform", "visionzip", "divprune", "flashvlm", "fastv")
THOUGHTFUL = ("count", "comparison")


class OracleSight:
    """Keeps the patches of what a question names, which no method can know, and fills up at random.

    It says how much a selector could win; that is why it stays here.
    """

    def __init__(self, sight: Any, share: float) -> None:
        self._sight, self._share = sight, share
        self.item: Item | None = None

    def see(self, images: Sequence[Any], *rest: Any) -> list[SeenImage]:
        seen = self._sight.see(images, *rest)
        return [self._kept(image) for image in seen]

    def _kept(self, image: SeenImage) -> SeenImage:
        assert self.item is not None
        info = self.item.info
        side = round(image.available**0.5)
        keep = -int(-image.available * self._share // 1)
        covered = [_cover(box, info["pixels"], side) for box in info["about"]]
        order: dict[int, None] = {}
        for turn in range(image.available):
            for patches in covered:
                if turn < len(patches):
                    order[patches[turn]] = None
        rng = np.random.default_rng(info["scene"])
        order |= dict.fromkeys(int(patch) for patch in rng.permutation(image.available))
        index = np.sort(np.array(list(order)[:keep]))
        return SeenImage(image.available, index, image.embeds[index])


def _cover(box: Sequence[float], pixels: int, side: int) -> list[int]:
    """Patches that a box touches, those first of which it covers most."""
    edges = np.arange(side) * (pixels / side)
    end = edges + pixels / side
    across = np.clip(np.minimum(end, box[2]) - np.maximum(edges, box[0]), 0, None)
    down = np.clip(np.minimum(end, box[3]) - np.maximum(edges, box[1]), 0, None)
    area = (down[:, None] * across[None]).reshape(-1)
    ranked = np.argsort(-area, kind="stable")
    return [int(patch) for patch in ranked[: int((area > 0).sum())]]


def oracle(model: tr.Model, items: Sequence[Item], share: float) -> list[float]:
    sight = model._sight
    replacement = OracleSight(sight, share)
    model._sight = replacement  # type: ignore[assignment]
    right = []
    try:
        for item in items:
            replacement.item = item
            report = score_task(model, Task(Path(), (item,)), ScoreConfig())
            right.append(report.overall.right)
    finally:
        model._sight = sight
    return right


def told(report: Report) -> dict[str, Any]:
    values = report.to_dict()
    return {name: values[name] for name in ("overall", "types", "by", "visual_tokens_kept")}


def rights(report: Report) -> list[float]:
    return [record.right or 0.0 for record in report.records]


def difference(items: Sequence[Item], one: Sequence[float], other: Sequence[float]) -> Any:
    """Mean of one - other in points, with the 95 % interval of a bootstrap over pictures."""
    groups: dict[Any, list[float]] = defaultdict(list)
    for item, a, b in zip(items, one, other, strict=True):
        groups[item.images].append(a - b)
    sums = np.array([sum(group) for group in groups.values()])
    counts = np.array([len(group) for group in groups.values()])
    draws = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = 100 * sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    mean = 100 * sums.sum() / counts.sum()
    return {"points": round(mean, 2), "interval": [round(low, 2), round(high, 2)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("task", type=Path)
    parser.add_argument("--untrained", help="a bundle of the same model before its training")
    parser.add_argument("--pruned", type=int, default=1200, help="questions asked with pruning")
    given = parser.parse_args()
    task = read_task(given.task)
    model = tr.load(given.bundle)
    found: dict[str, Any] = {}

    def score(name: str, items: Sequence[Item], of: tr.Model = model, **options: Any) -> Report:
        config = ScoreConfig(by=("level",), **options)
        report = score_task(of, Task(task.folder, tuple(items)), config)
        found[name] = told(report)
        print(f"{name}: {report.overall.accuracy:.4f} of {report.overall.n}", flush=True)
        return report

    whole = score("336 px", task.items)
    for resolution in (224, 168):
        score(f"{resolution} px", task.items, point=tr.OperatingPoint(resolution=resolution))
    seen = [item for item in task.items if item.images]
    everything = dict(zip((item.id for item in task.items), rights(whole), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        grey = Path(folder) / "grey.png"
        Image.new("RGB", (336, 336), (128, 128, 128)).save(grey)
        score("grey picture", [replace(item, images=(grey,)) for item in seen])
    thoughtful = [item for item in seen if item.type in THOUGHTFUL]
    score("empty thought", thoughtful, thinking="off")
    if given.untrained:
        score("untrained", seen[: given.pruned], of=tr.load(given.untrained))

    pruned = seen[: given.pruned]
    unpruned = [everything[item.id] for item in pruned]
    losses: dict[str, Any] = {}
    against_random: dict[str, Any] = {}
    for keep in KEPT:
        chance: list[float] = []
        for method in ("random", *METHODS):
            point = tr.OperatingPoint(selector=method, keep=keep)
            right = rights(score(f"{method} {keep}", pruned, point=point))
            chance = chance or right
            losses[f"{method} {keep}"] = difference(pruned, right, unpruned)
            against_random[f"{method} {keep}"] = difference(pruned, right, chance)
    losses["oracle 12.5%"] = difference(pruned, oracle(model, pruned, 0.125), unpruned)
    print("oracle 12.5%:", losses["oracle 12.5%"], flush=True)
    record(
        "scenes",
        {
            "questions": len(task.items),
            "pruned_questions": len(pruned),
            "small": sum(item.info.get("smallest", 45) < 45 for item in task.items),
            "conditions": found,
            "against_everything": losses,
            "against_random": against_random,
        },
    )


if __name__ == "__main__":
    main()
