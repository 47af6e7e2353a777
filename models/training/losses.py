"""What training minimises: answers, and what each patch and the whole picture show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration as Model

from models.training.architecture import LAYERS, TOWER_WIDTH, WIDTH, WORKING_LAYERS
from models.training.batches import NUM_PRESENT, Batch
from models.training.forward import additive, decoder, packed_mask, tower
from models.training.labels import ATTRIBUTES, NUM_VALUES, PLACES, one_hot, value_names
from models.training.vocabulary import IDS
from tightrope.arrays import Array

_PATCH_WEIGHTS = {
    "kind": 1.0,
    "colour": 0.5,
    "texture": 0.3,
    "size": 0.2,
    "digit": 0.7,
    "word": 0.7,
    "ground": 0.5,
    "light": 0.3,
    "vacancy": 0.3,
    "row": 0.15,
    "column": 0.15,
    "file": 0.15,
    "rank": 0.15,
}
_BACKGROUND_WEIGHT = 0.5
_EVERYWHERE = ("kind", *PLACES)
"""Attributes that every thing has."""
_DEEP = (2, 3)
"""Tower layers with heads of their own, so that the first layers learn early."""


class Aids(nn.Module):
    """Weights that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.oracle = nn.Linear(NUM_VALUES, WIDTH)
        self.patch = nn.Sequential(nn.LayerNorm(TOWER_WIDTH), nn.Linear(TOWER_WIDTH, NUM_VALUES))
        self.deep = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(TOWER_WIDTH), nn.Linear(TOWER_WIDTH, NUM_VALUES))
            for _ in _DEEP
        )
        self.cls = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(TOWER_WIDTH), nn.Linear(TOWER_WIDTH, NUM_PRESENT))
            for _ in range(2)
        )
        self.attributes = nn.Linear(WIDTH, NUM_VALUES)

    def tie(self, words: Tensor) -> None:
        """Start the oracle's columns at the embeddings of the words that say the same."""
        with torch.no_grad():
            self.oracle.weight.normal_(std=0.1)
            self.oracle.bias.zero_()
            for column, name in enumerate(value_names()):
                if name in IDS:
                    self.oracle.weight[:, column] = words[IDS[name]]


@dataclass(slots=True)
class Tensors:
    """A batch on its device."""

    pixels: Tensor | None
    hot: Tensor
    values: Tensor
    owner: Tensor
    present: Tensor
    ids: Tensor
    positions: Tensor
    block: Tensor
    target: Tensor
    weight: Tensor
    question: Tensor
    visual: Tensor
    named: Tensor
    ground: Tensor
    readable: Tensor
    types: list[list[int]]


def to_tensors(batch: Batch, device: torch.device) -> Tensors:
    def put(array: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    pixels = None
    if batch.pixels is not None:
        pixels = put(batch.pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
    count, patches, width = batch.values.shape
    hot = one_hot(batch.values.reshape(-1, width)).reshape(count, patches, NUM_VALUES)
    return Tensors(
        pixels=pixels,
        hot=put(hot),
        values=put(batch.values),
        owner=put(batch.owner),
        present=put(batch.present),
        ids=put(batch.ids),
        positions=put(batch.positions),
        block=put(batch.block),
        target=put(batch.target),
        weight=put(batch.weight),
        question=put(batch.question),
        visual=put(batch.visual),
        named=put(batch.named),
        ground=put(batch.ground),
        readable=put(batch.readable),
        types=batch.types,
    )


def answers(
    model: Model, tokens: Tensor, data: Tensors, whole: bool, hide_from: int = LAYERS
) -> tuple[Tensor, Tensor, list[tuple[int, bool]]]:
    """The answers' loss, how little the questions look at what they are about, and for each
    question its type and whether every token is right.

    tokens: visual tokens [B,N,D]. whole: run every layer, else WORKING_LAYERS alone. From layer
    `hide_from` on the text does not see the picture.
    """
    x = model.model.language_model.embed_tokens(data.ids)
    is_visual = torch.zeros_like(data.ids, dtype=torch.bool)
    if len(data.visual):
        picture, patch, row, place = data.visual.unbind(1)
        x = x.index_put((row, place), tokens[picture, patch])
        is_visual[row, place] = True
    start = int((data.block != 0).int().argmax(1).min())
    open_mask = packed_mask(data.block)[:, start:]
    mask = additive(open_mask)
    hidden_mask = mask
    if hide_from < LAYERS:
        text_to_picture = ~is_visual[:, start:, None] & is_visual[:, None, :]
        hidden_mask = additive(open_mask & ~text_to_picture)
    layers = range(LAYERS) if whole else WORKING_LAYERS
    masks = [hidden_mask if index >= hide_from else mask for index in layers]
    grounding: list[Tensor] = []

    def watch(layer: int, query: Tensor, key: Tensor) -> None:
        here = data.named[:, 2] == layer
        if here.any():
            grounding.append(_grounding(query, key, data, here))

    hidden = decoder(model, x, data.positions, masks, layers, watch)
    at = data.target >= 0
    logits = model.lm_head(hidden[at[:, start:]])
    target, weight = data.target[at], data.weight[at]
    losses = F.cross_entropy(logits, target, reduction="none")
    loss = (losses * weight).sum() / weight.sum()
    wrong = (logits.argmax(-1) != target).cpu().numpy()
    rows, _ = at.nonzero(as_tuple=True)
    found = _verdicts(rows.cpu().numpy(), data.question[at].cpu().numpy(), wrong, data.types)
    astray = torch.cat(grounding).mean() if grounding else torch.zeros_like(loss)
    return loss, astray, found


def _grounding(query: Tensor, key: Tensor, data: Tensors, here: Tensor) -> Tensor:
    """How little of what one KV head reads is what the question is about, for each of `here`.

    Content look-ups are the last thing that such a small decoder learns from answers alone: it
    guesses the commonest colour for thousands of steps. Told where to look, it looks. Pictures and
    texts have a KV head each: few of a head's 32 dimensions turn slowly enough to match words over
    hundreds of positions, and there are too many words for one.
    """
    row, place, _ = data.named[here].unbind(1)
    heads = query.shape[1] // key.shape[1]
    own = 0 if len(data.visual) else 1
    asked, read = query[row, own * heads : (own + 1) * heads, place], key[row, own]
    scores = torch.einsum("ghd,gtd->ght", asked, read) / read.shape[-1] ** 0.5
    scores = scores.masked_fill(~data.readable[here][:, None], -1e9)
    whole = torch.logsumexp(scores, -1)
    about = torch.logsumexp(scores.masked_fill(~data.ground[here][:, None], -1e9), -1)
    return (whole - about).mean(1)


def _verdicts(
    rows: Any, questions: Any, wrong: Any, types: list[list[int]]
) -> list[tuple[int, bool]]:
    right = [[True] * len(row) for row in types]
    for row, question in zip(rows[wrong], questions[wrong], strict=True):
        right[row][question] = False
    return [
        (t, ok)
        for row, oks in zip(types, right, strict=True)
        for t, ok in zip(row, oks, strict=True)
    ]


def sight(model: Model, aids: Aids, data: Tensors) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Visual features [B,N,D] before the projector, the tower's own loss, and its accuracies."""
    assert data.pixels is not None
    states = tower(model, data.pixels)
    features = states[-2][:, 1:]
    loss, shares = _patch_loss(aids.patch(features), data)
    for head, layer in zip(aids.deep, _DEEP, strict=True):
        loss = loss + 0.3 * _patch_loss(head(states[layer - 1][:, 1:]), data)[0]
    for head, state in zip(aids.cls, states[-2:], strict=True):
        loss = loss + 0.5 * F.mse_loss(head(state[:, 0]), data.present) * 4
    return features, loss, shares


def _patch_loss(logits: Tensor, data: Tensors) -> tuple[Tensor, dict[str, float]]:
    """Each attribute counts over the patches that have it, however few they are."""
    shown = data.owner >= 0
    loss, shares, start = torch.zeros((), device=logits.device), {}, 0
    for index, (name, names) in enumerate(ATTRIBUTES.items()):
        part = logits[..., start : start + len(names)]
        start += len(names)
        target = data.values[..., index]
        each = F.cross_entropy(part.flatten(0, 1), target.flatten(), reduction="none")
        has = shown if name in _EVERYWHERE else shown & (target < len(names) - 1)
        loss = loss + _PATCH_WEIGHTS[name] * _BACKGROUND_WEIGHT * each.mean()
        if has.any():
            loss = loss + _PATCH_WEIGHTS[name] * each[has.flatten()].mean()
            right = part.detach().argmax(-1) == target
            shares[name] = float(right[has].float().mean())
    return loss, shares


def visual_tokens(model: Model, pixels: Tensor) -> Tensor:
    """What enters the decoder [B,N,D] of pixels [B,3,px,px]."""
    return projected(model, tower(model, pixels)[-2][:, 1:])


def projected(model: Model, features: Tensor) -> Tensor:
    tokens: Tensor = model.model.multi_modal_projector(features)
    return tokens


def bridge(tokens: Tensor, aids: Aids, data: Tensors) -> Tensor:
    """How far projected features [B,N,D] are from the oracle's tokens, background counting less."""
    wanted = aids.oracle(data.hot).detach()
    weight = torch.where(data.owner >= 0, 1.0, 0.2)[..., None]
    apart: Tensor = ((tokens - wanted) ** 2 * weight).sum() / ((wanted**2) * weight).sum()
    return apart
