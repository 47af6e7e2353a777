"""What Hugging Face's model is called with for a prompt, of text or of text around one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch

from tightrope.arrays import Array, Floats
from tightrope.export.recipe import Recipe, Vision
from tightrope.inputs.layout import ImageTokens, assemble, visual_tokens
from tightrope.interface.tensors import INPUTS_EMBEDS, VISUAL_EMBEDS

Ask = Callable[[Sequence[int]], dict[str, torch.Tensor]]
"""What the model is called with for a prompt and these tokens behind it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture: the tower's inputs, and its tokens as Hugging Face's tower gives them."""

    inputs: dict[str, Array]
    tokens: ImageTokens


def look(recipe: Recipe, vision: Vision, model: Any, picture: PIL.Image.Image) -> Seen:
    """A picture at the bundle's first resolution."""
    resolution = vision.info.resolutions[0]
    tables = vision.model.tables(model, vision.info)
    inputs = vision.host.prepare(recipe.preprocessor, tables)([picture], resolution)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        embeds = vision.model.reference_embeds(model, inputs).float().numpy()
    layout = vision.host.layout(picture.size, resolution)
    tokens = vision.host.tokens({VISUAL_EMBEDS: embeds}, picture.size, resolution)
    index = np.arange(visual_tokens(layout))
    return Seen(inputs, ImageTokens(layout, index, tokens[VISUAL_EMBEDS][0]))


def asked(recipe: Recipe, model: Any, token_ids: Sequence[int], seen: Seen | None) -> Ask:
    """Of a prompt; seen: the picture that stands at its placeholder."""
    vision, whole = recipe.vision, recipe.checkpoint.family.reference_inputs
    marker = None if vision is None else vision.info.image_token_id
    embed = _embedding(recipe, model)
    stream = assemble(token_ids, marker, [] if seen is None else [seen.tokens], embed)
    if whole is None:

        def ask(answer: Sequence[int]) -> dict[str, torch.Tensor]:
            parts = [stream.embeds, embed(answer)] if answer else [stream.embeds]
            return {INPUTS_EMBEDS: torch.from_numpy(np.concatenate(parts))[None]}

        return ask

    def ask_whole(answer: Sequence[int]) -> dict[str, torch.Tensor]:
        ids = [token for run in stream.runs for token in run.ids or [marker] * run.count]
        given = torch.tensor([[*ids, *answer]])
        if seen is None:
            return {"input_ids": given}
        inputs: dict[str, torch.Tensor] = whole(model, seen.inputs, given)
        return inputs

    return ask_whole


def _embedding(recipe: Recipe, model: Any) -> Callable[[Sequence[int]], Floats]:
    """Rows of the model's own table, and of what its tower puts between visual tokens."""
    vision, known = recipe.vision, recipe.dims.vocab_size
    table = model.get_input_embeddings()
    own = None if vision is None else vision.model.separators(model)

    def embed(ids: Sequence[int]) -> Floats:
        given = torch.tensor(ids)
        rows = table(given.clamp(max=known - 1))  # at once: the table is read for every call
        for place, token in enumerate(ids):
            if own is not None and token >= known:
                rows[place] = own[token - known]
        embeds: Floats = rows.float().numpy()
        return embeds

    return embed
