"""How well a checkpoint answers, in PyTorch.

Teacher-forced: an answer is right if every one of its tokens, its thought's too, is the likeliest,
which is what greedy decoding would write. Made for watching a training; the figures of the model
card come from the exported bundle.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration as Model

from models.training.architecture import LAYERS, create
from models.training.batches import TYPES, pack
from models.training.labels import patch_labels
from models.training.losses import answers, to_tensors, visual_tokens
from tightrope.profiles.scenes.draw import draw
from tightrope.profiles.scenes.kinds import LEVEL_SHARES
from tightrope.profiles.scenes.questions import QUESTIONS, Question, ask
from tightrope.profiles.scenes.sample import LEVELS, sample_scene, scene_rng
from tightrope.profiles.scenes.scene import Scene


def scenes(number: int, seed: int = 0) -> Iterator[tuple[Scene, list[Question]]]:
    for index in range(number):
        rng = scene_rng("dev", seed, index)
        level = LEVELS[
            int(rng.choice(len(LEVELS), p=[LEVEL_SHARES[name] / 100 for name in LEVELS]))
        ]
        scene = sample_scene(rng, "dev", level)
        yield scene, [q for name in QUESTIONS if (q := ask(rng, scene, name))]


def measure(
    model: Model, number: int, pixels: int, condition: str, empty_thought: bool, whole: bool
) -> dict[str, list[bool]]:
    """Share right by type, with the number of questions, under a condition:
    all | grey | random:12.5 | oracle:12.5 | hide:4"""
    kind, _, value = condition.partition(":")
    right: dict[str, list[bool]] = defaultdict(list)
    for at, (scene, questions) in enumerate(scenes(number)):
        rng = np.random.RandomState([11, at])
        labels, owner = patch_labels(scene, pixels)
        picture = draw(scene, "dev", pixels)
        if kind == "grey":
            picture[:] = 128
        groups = [questions]
        if kind == "oracle":
            groups = [[question] for question in questions]
        for group in groups:
            chosen = np.arange(len(owner))
            keep = -(-len(owner) * float(value or 100) // 100)
            if kind == "random":
                chosen = np.sort(rng.permutation(len(owner))[: int(keep)])
            elif kind == "oracle":
                named = np.isin(owner, group[0].about)
                order = rng.permutation(len(owner))
                order = order[np.argsort(~named[order], kind="stable")]
                chosen = np.sort(order[: int(keep)])
            batch = pack(scene, group, chosen, labels, owner, picture, empty_thought)
            data = to_tensors(batch, torch.device("cpu"))
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
    for pixels in given.pixels:
        for condition in given.condition:
            right = measure(
                model,
                given.scenes,
                pixels,
                condition,
                given.empty_thought,
                not given.working_layers,
            )
            print(json.dumps({"pixels": pixels, "condition": condition, **summary(right)}))


if __name__ == "__main__":
    main()
