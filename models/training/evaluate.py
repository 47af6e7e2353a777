"""How well a checkpoint answers, in PyTorch.

Teacher-forced: an answer is right if every one of its tokens, its thought's too, is the likeliest,
which is what greedy decoding would write. Made for watching a training; the figures of the model
card come from the exported bundle.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration as Model

from models.training.architecture import LAYERS, create
from models.training.batches import TYPES, pack, seen
from models.training.losses import answers, to_tensors, visual_tokens
from models.training.subjects import SUBJECTS, Subject
from tightrope.profiles.scenes.draw import draw
from tightrope.profiles.scenes.kinds import KINDS
from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.sample import scene_rng

_CPU = torch.device("cpu")


def subjects(kind: str, level: int | None, number: int) -> Iterator[tuple[Subject, list[Question]]]:
    """Subjects of split dev, each with a question of every type that it has room for."""
    levels = KINDS[kind].levels
    for index in range(number):
        rng = scene_rng("dev", 0, index)
        subject = SUBJECTS[kind](rng, "dev", levels.pick(rng, level))
        yield subject, [q for type in subject.types if (q := subject.ask(rng, type))]


def measure(
    model: Model,
    asked: Iterable[tuple[Subject, list[Question]]],
    pixels: int,
    condition: str,
    empty_thought: bool,
    whole: bool,
) -> dict[str, list[bool]]:
    """What was answered rightly, by type, under a condition:
    all | grey | random:12.5 | oracle:12.5 | hide:4"""
    kind, _, value = condition.partition(":")
    right: dict[str, list[bool]] = defaultdict(list)
    for at, (subject, questions) in enumerate(asked):
        rng = np.random.RandomState([11, at])
        shown = seen(subject.scenes, pixels)
        pictures = np.stack([draw(scene, "dev", pixels) for scene in subject.scenes])
        if kind == "grey":
            pictures[:] = 128
        groups = [questions]
        if kind == "oracle":
            groups = [[question] for question in questions]
        for group in groups:
            count = len(shown.asked)
            chosen = np.arange(count)
            keep = -(-count * float(value or 100) // 100)
            if kind == "random":
                chosen = np.sort(rng.permutation(count)[: int(keep)])
            elif kind == "oracle":
                named = np.isin(shown.asked, group[0].about)
                order = rng.permutation(count)
                order = order[np.argsort(~named[order], kind="stable")]
                chosen = np.sort(order[: int(keep)])
            data = to_tensors(pack(pictures, shown, group, chosen, empty_thought), _CPU)
            assert data.pixels is not None
            with torch.no_grad():
                tokens = visual_tokens(model, data.pixels)
                hide = int(value) if kind == "hide" else LAYERS
                _, _, verdicts = answers(model, tokens, data, whole, hide)
            for type_, ok in verdicts:
                right[TYPES[type_]].append(ok)
    return right


def summary(right: dict[str, list[bool]]) -> dict[str, float]:
    found = {name: round(float(np.mean(right[name])), 3) for name in TYPES if right[name]}
    values = [ok for oks in right.values() for ok in oks]
    return {"all": round(float(np.mean(values)), 4), "n": len(values), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--kind",
        nargs="+",
        choices=[name for name in KINDS if name in SUBJECTS],
        default=["scenes"],
    )
    parser.add_argument("--level", type=int, nargs="+", help="of the kinds that count")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--pixels", type=int, nargs="+", default=[336])
    parser.add_argument("--condition", nargs="+", default=["all"])
    parser.add_argument("--empty-thought", action="store_true")
    parser.add_argument("--working-layers", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = create(0).eval()
    state = torch.load(given.checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    ways = product(given.kind, given.level or [None], given.pixels, given.condition)
    for kind, level, pixels, condition in ways:
        asked = subjects(kind, level, given.scenes)
        whole = not given.working_layers
        right = measure(model, asked, pixels, condition, given.empty_thought, whole)
        told = {"kind": kind, "level": level, "pixels": pixels, "condition": condition}
        print(json.dumps(told | summary(right)), flush=True)


if __name__ == "__main__":
    main()
