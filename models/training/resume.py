"""Make the checkpoint that a further stage goes on from out of released weights.

`python -m models.training.resume FOLDER OUT` writes the checkpoint of the last stage there is, as
if it had ended with the weights in FOLDER: a stage behind it then needs no training from nothing.
Words that FOLDER does not know get fresh embeddings, and what only training needs is fitted anew to
the frozen model.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration as Model

from models.training import checkpoints
from models.training.architecture import create
from models.training.batches import Diet, make_batch
from models.training.losses import Aids, projected, sight, to_tensors
from models.training.stages import STAGES
from models.training.subjects import SUBJECTS
from models.training.train import settings
from models.training.vocabulary import IDS

STAGE = STAGES[-1]
STEPS, RATE = 400, 3e-3
_BY_WORD = ("embed_tokens.weight", "lm_head.weight")


def released(folder: Path, seed: int) -> Model:
    """The model with the weights of a released folder."""
    model = create(seed)
    fresh, found = model.state_dict(), Model.from_pretrained(folder).float().state_dict()
    old = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    known = [word for word in IDS if word in old]
    for name in (name for name in fresh if name.endswith(_BY_WORD)):
        rows = fresh[name].clone()
        rows[[IDS[word] for word in known]] = found[name][[old[word] for word in known]]
        found[name] = rows
    model.load_state_dict(found)
    return model


def fitted(model: Model, seed: int) -> Aids:
    """What only training needs, fitted to what the model shows as it is."""
    aids = Aids()
    aids.tie(model.model.language_model.embed_tokens.weight)
    optimizer = torch.optim.Adam(aids.parameters(), RATE)
    kinds = {name: 1.0 for name in SUBJECTS if name != "several"}
    diet = Diet(
        pictures=8,
        text=0,
        levels={"easy": 0.2, "medium": 0.3, "hard": 0.5},
        pixels={168: 0.7, 224: 0.3},
        texts=0.0,
        kinds=kinds,
    )
    for step in range(STEPS):
        data = to_tensors(make_batch(diet, seed + 500_000, step, 0, 1), torch.device("cpu"))
        features, loss, _ = sight(model, aids, data)
        with torch.no_grad():
            tokens = projected(model, features)
        apart = ((aids.oracle(data.hot) - tokens) ** 2).mean() / (tokens**2).mean()
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        optimizer.zero_grad()
        (loss + apart).backward()
        optimizer.step()
    return aids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = released(given.folder, given.seed).requires_grad_(False)
    aids = fitted(model, given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    state = {
        "settings": settings(STAGE, given.seed),
        "model": model.state_dict(),
        "aids": aids.state_dict(),
        "optimizer": {},
        "step": STAGE.steps,
        "seconds": 0.0,
    }
    path = given.out / f"{STAGE.name}.pt"
    checkpoints.save(path, state)
    print(f"{path} stands for {given.folder}")


if __name__ == "__main__":
    main()
