"""What each part of a model takes in the bundle, and what storing it so costs by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.bundle import EMBEDDINGS, WeightGroup
from tightrope.export.distance import relative, text_logits
from tightrope.export.late import LateModel, parameters_of
from tightrope.export.recipe import Recipe
from tightrope.export.weights import WeightFile
from tightrope.export.written import written

ATTENTION, MLP, HEAD, EMBEDDING, NORMS = "attention", "mlp", "head", "embeddings", "norms"
TOWER, PROJECTOR = "tower", "projector"
_READ_BY_TEXT = (ATTENTION, MLP, HEAD, EMBEDDING, NORMS)
_PROMPT_TOKENS = 40


def measure(
    recipe: Recipe, late: LateModel, weights: WeightFile, folder: Path
) -> dict[str, WeightGroup]:
    """Of the bundle in `folder`, by group.

    Where weights are in codes, a group's error is the relative difference of the logits of a seeded
    text when that group alone has the weights that were written.
    """
    stored = weights.stored()
    names = _by_group(late.model, list(stored))
    errors = _errors(recipe, late, weights, names) if recipe.precision.quantized else {}
    groups = {}
    for group in (*_READ_BY_TEXT, TOWER, PROJECTOR):
        parts = [stored[name] for name in names.get(group, ())]
        kinds, size = Counter(part.how for part in parts), sum(part.bytes for part in parts)
        if group == EMBEDDING:  # the table that the host reads
            kinds, size = Counter([recipe.precision.storage]), (folder / EMBEDDINGS).stat().st_size
        if kinds:
            error = errors.get(group)
            groups[group] = WeightGroup(stored=dict(kinds), bytes=size, logit_error=error)
    return groups


def _by_group(model: Any, parameters: Sequence[str]) -> dict[str, list[str]]:
    """Parameters of graphs; where embeddings are tied they are the head there."""
    decoder = model.get_decoder()
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    ends = (model.get_output_embeddings().weight, model.get_input_embeddings().weight)
    named, groups = parameters_of(model), dict[str, list[str]]()
    for name in parameters:
        if any(named[name] is end for end in ends):
            group = HEAD
        elif not name.startswith(f"{prefix}."):
            projects = any(word in name for word in ("projector", "connector", "merger"))
            group = PROJECTOR if projects else TOWER
        elif "attn" in name:
            group = ATTENTION
        else:
            group = NORMS if "norm" in name or "inv_freq" in name else MLP
        groups.setdefault(group, []).append(name)
    return groups


def _errors(
    recipe: Recipe, late: LateModel, weights: WeightFile, names: dict[str, list[str]]
) -> dict[str, float]:
    rng = np.random.default_rng(recipe.config.seed)
    token_ids = rng.integers(0, recipe.dims.vocab_size, _PROMPT_TOKENS)
    with late.computing():
        original = text_logits(late.model, token_ids)
    errors = {}
    for group in _READ_BY_TEXT:
        read = written(late, weights, names.get(group, ()), table=group == EMBEDDING)
        with late.computing(read):
            errors[group] = relative(original, text_logits(late.model, token_ids))
    return errors
