"""Questions of a task asked in several ways, in several processes, and compared in pairs."""

from __future__ import annotations

import functools
import multiprocessing
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import tightrope as tr
from tightrope.arrays import Indices
from tightrope.bundle import Bundle
from tightrope.profiles.task.score import score_task
from tightrope.profiles.task.score_config import ScoreConfig
from tightrope.profiles.task.tally import Tally
from tightrope.profiles.task.task import Item, Task
from tightrope.runtime.backends import create_backend
from tightrope.runtime.baselines import Baseline

RESAMPLES = 4000


class Oracle:
    """Keeps the patches of what a question names, which no method can know, and fills up at random.

    It says how much a selector could win; that is why it stays here.
    """

    def __init__(self) -> None:
        self.item: Item | None = None
        """The question that is asked next."""

    def indices(self, number: int, available: int, keep: int, seed: int) -> Indices:
        """Kept patches of the item's picture `number`, [K] ascending."""
        assert self.item is not None
        info, side = self.item.info, round(available**0.5)
        shown = info.get("about_images", [0] * len(info["about"]))
        covered = [
            _cover(box, info["pixels"], side)
            for box, at in zip(info["about"], shown, strict=True)
            if at == number
        ]
        order: dict[int, None] = {}
        for turn in range(available):
            for patches in covered:
                if turn < len(patches):
                    order[patches[turn]] = None
        rng = np.random.default_rng([info["scene"], number])
        order |= dict.fromkeys(int(patch) for patch in rng.permutation(available))
        return np.sort(np.array(list(order)[:keep]))


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


def in_turn(
    wanted: Sequence[Condition], processes: int
) -> Iterator[tuple[Condition, dict[str, Any], dict[str, float]]]:
    """Each condition with what `measure` says of it, in order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        for condition, (told, right) in zip(wanted, pool.map(measure, wanted), strict=True):
            overall = told["overall"]
            print(f"{condition.name}: {overall['accuracy']:.4f} of {overall['n']}", flush=True)
            yield condition, told, right
