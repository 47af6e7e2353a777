"""What two backends are asked alike, so that their answers can be held against each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from tightrope.point import OperatingPoint

QUESTION = "what is on the left ?"
LONG = "is there a red star on the left of the blue circle ? " * 3


def points(few: int, layers: int) -> dict[str, dict[str, Any]]:
    """Operating points by name; `few` slots are less than a prompt and its answer need."""
    return {
        "everything": {},
        "selected before": {"selector": "flashvlm", "keep": "25%"},
        "selected inside": {"selector": "fastv", "keep": "25%"},
        "selected twice": {"selector": "visionzip+fastv", "keep": ("50%", "25%")},
        **{
            f"few slots by {policy}": {"kv_budget": few, "policy": policy}
            for policy in ("h2o", "tova", "snapkv", "knorm", "streaming")
        },
        "layers apart": {
            "kv_budget": tuple(few + 8 * (layer % 3) for layer in range(layers)),
            "policy": "tova",
        },
    }


def ask_all(model: Any, image: str, few: int) -> dict[str, Any]:
    """Tokens, and how many slots were occupied, by what was asked."""
    layers = model.bundle.manifest.dims.num_hidden_layers
    told = {name: ask(model, [image], **point) for name, point in points(few, layers).items()}
    told["text alone"] = ask(model, [], prompt=LONG)
    told["the same again"] = ask(model, [image])
    sampled = model.generate(
        QUESTION, [image], max_tokens=9, n=3, seed=1, temperature=1.0, ignore_eos=True
    )
    told["three answers"] = [list(each.token_ids) for each in sampled.samples]
    likely = model.generate(
        QUESTION, [image], max_tokens=9, n=2, seed=3, temperature=0.8, top_k=5, ignore_eos=True
    )
    told["of the likeliest"] = [list(each.token_ids) for each in likely.samples]
    chat, point = model.chat(), OperatingPoint(kv_budget=2 * few, policy="h2o")
    turns = [
        chat.ask(text, images, max_tokens=12, ignore_eos=True, point=point)
        for text, images in ((QUESTION, [image]), (LONG, []), (QUESTION, []))
    ]
    told["a chat"] = [list(turn.token_ids) for turn in turns]
    return told


def probabilities(model: Any) -> list[list[list[float]]]:
    """For each of some prompts and each of six tokens, the token and its log-probability."""
    rng = np.random.default_rng(0)
    found = []
    for length in (3, 20, 90):
        ids = rng.integers(5, 200, length).tolist()
        answer = model.generate(ids, max_tokens=6, logprobs=1, ignore_eos=True)
        found.append([[each.token_id, each.logprob] for each in answer.logprobs])
    return found


def ask(model: Any, images: list[str], prompt: str = QUESTION, **point: Any) -> list[Any]:
    """Twenty tokens, behind which a step has given slots up where there are few."""
    answer = model.generate(
        prompt, images, max_tokens=20, ignore_eos=True, point=OperatingPoint(**point)
    )
    return [list(answer.token_ids), answer.usage.occupied_slots]


def few(model: Any, image: str, slots: int) -> dict[str, Any]:
    """The same of a few points: everything, selected before and inside, few slots, text alone."""
    wanted = ("everything", "selected twice", "few slots by h2o", "few slots by snapkv")
    each = points(slots, model.bundle.manifest.dims.num_hidden_layers)
    told = {name: ask(model, [image], **each[name]) for name in wanted}
    return told | {"text alone": ask(model, [], prompt=LONG)}
