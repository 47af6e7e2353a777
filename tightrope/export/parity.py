"""Is the bundle the model that it came from? Measured at the end of every export.

The host graphs run in ONNX Runtime on a seeded prompt, prefill and greedy decode, and every step
is compared with Hugging Face's model carrying the very weights that were written, without a
cache. The figure that must hold in float32: logits within max(1e-4, three times the difference
between Hugging Face's own eager and sdpa attention), and equal greedy tokens unless the top two
lie closer than that.

Of a GGUF file the model itself is held against the file first: the reader that gave its weights
cannot vouch for them, so the logits must be those of the file's tensors, computed without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from tightrope.arrays import Array, Floats
from tightrope.bundle import EMBEDDINGS, Parity
from tightrope.errors import UnsupportedModel
from tightrope.export.checkpoint import embedding_scale
from tightrope.export.distance import relative, text_logits
from tightrope.export.gguf import oracle
from tightrope.export.gguf.model import GgufModel
from tightrope.export.late import LateModel
from tightrope.export.originals import Ask, Seen, asked, look
from tightrope.export.overflow import schedule_overflow, tower_overflow, watched
from tightrope.export.recipe import Recipe, Vision
from tightrope.export.walking import (
    IN_FLOAT32,
    IN_INT8,
    Prompt,
    Walk,
    one_for_both,
    session,
    walk,
)
from tightrope.export.weights import WeightFile
from tightrope.export.written import all_written
from tightrope.inputs.embeddings import Embeddings
from tightrope.inputs.layout import ImageTokens, assemble
from tightrope.inputs.positions import find_rule
from tightrope.interface.names import GraphName
from tightrope.interface.tensors import DEEPSTACK, INT8_SLOTS, VISUAL_EMBEDS

PROMPT_TOKENS = 40
_STANDARD_STEPS = 2
"""float16 is slow on a CPU, and the first steps show what it rounds away."""
_LEAST_TOLERANCE = 1e-3
_MARGIN = 3
"""Of all steps that a backend is held against, over those whose rounding was looked at."""
_LIKELIEST = 8
_MOST_INT8_PREFILL = 0.1
"""Rounding to int4 itself moves logits by a third of their size."""
_IMAGE_AT = 4
_APART = 16
_READ_ALIKE = 1e-3
"""float32 leaves 1e-4 at most; a bias or a scaling that is lost makes 1e-2 and more."""


def measure(
    recipe: Recipe, late: LateModel, weights: WeightFile, folder: Path, tower: Path | None = None
) -> Parity:
    """Figures of the bundle in `folder`; of `late`, norms and biases are as written afterwards.

    tower: the graph of the tower in int8, if the bundle is to have it instead.
    Raises UnsupportedModel where float32 parity does not hold.
    """
    rng = np.random.default_rng(recipe.config.seed)
    token_ids = rng.integers(0, recipe.dims.vocab_size, PROMPT_TOKENS)
    rounded = recipe.precision.storage != "float32"
    graphs = [folder / GraphName("host", "vision").file, *([] if tower is None else [tower])]
    model = late.model
    with late.computing():
        original = text_logits(model, token_ids)
        read = held_against_file(recipe.checkpoint.gguf, model, token_ids)
    as_written = all_written(late, weights)
    late.settle(as_written)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(weights.rounded(name))
    with late.computing(as_written):
        ours, theirs, seen = _prompts(recipe, model, (folder, graphs), token_ids.tolist(), rng)
        figures = _compare(recipe, model, ours, theirs, folder)
        if seen is not None and recipe.precision.activations == "float16":
            found = (
                figures.overflow
                or schedule_overflow(folder, ours, recipe)
                or tower_overflow(folder, seen.inputs)
            )
            figures = replace(figures, overflow=found)
        if rounded:
            distance = relative(original, text_logits(model, token_ids))
            figures = replace(figures, stored_weights=distance)
    return replace(figures, read_weights=read)


def held_against_file(opened: GgufModel | None, model: Any, token_ids: Array) -> float | None:
    """Relative difference between `model` and the GGUF file that it was read from; None without.

    Positions lie apart, so that a rotary rule that is misread shows in a short prompt. Raises
    UnsupportedModel where the two are not the same model.
    """
    if opened is None:
        return None
    positions = np.arange(len(token_ids)) * _APART
    with torch.no_grad():
        values = model(
            input_ids=torch.from_numpy(token_ids)[None],
            position_ids=torch.from_numpy(positions)[None],
            # Said, or transformers takes a leap in positions for another text.
            attention_mask=torch.ones(1, len(token_ids), dtype=torch.int64),
            use_cache=False,
        ).logits[0]
    distance = relative(oracle.logits(opened.file, token_ids, positions), values.numpy())
    if not distance < _READ_ALIKE:
        raise UnsupportedModel(
            f"{opened.file.path} was not read as it stands: the logits differ by {distance:.1e} of "
            f"their size from those of the file's own tensors, {_READ_ALIKE:.0e} is allowed; "
            "export the model's Hugging Face folder instead"
        )
    return distance


def _prompts(
    recipe: Recipe,
    model: Any,
    files: tuple[Path, Sequence[Path]],
    token_ids: list[int],
    rng: np.random.Generator,
) -> tuple[Prompt, Ask, Seen | None]:
    """The prompt as a bundle takes it, as Hugging Face's model does, and the picture in it.

    files: the bundle's folder and the graphs of its tower.
    """
    folder, graphs = files
    vision = recipe.vision
    embed = Embeddings(
        folder / EMBEDDINGS,
        recipe.precision.storage,
        recipe.dims,
        embedding_scale(model),
        0 if vision is None else vision.info.separators,
    )
    marker = None if vision is None else vision.info.image_token_id
    seen, ours = None, list[ImageTokens]()
    if vision is not None and marker is not None:
        seen, ours = _seen(recipe, vision, model, graphs, rng)
        token_ids = [token for token in token_ids if token != marker]
        token_ids.insert(_IMAGE_AT, marker)
    stream, *rounded = (
        assemble(token_ids, marker, ours[place : place + 1], embed)
        for place in range(max(1, len(ours)))
    )
    return Prompt(stream, embed, *rounded), asked(recipe, model, token_ids, seen), seen


def _seen(
    recipe: Recipe, vision: Vision, model: Any, graphs: Sequence[Path], rng: np.random.Generator
) -> tuple[Seen, list[ImageTokens]]:
    """One picture as Hugging Face's tower sees it, and as each of `graphs` does."""
    resolution = vision.info.resolutions[0]
    width, height = size = vision.host.trial_size(resolution)
    picture = PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    seen = look(recipe, vision, model, picture)
    layout, index = seen.tokens.layout, seen.tokens.index
    names = [VISUAL_EMBEDS, *([DEEPSTACK] if recipe.dims.deepstack else [])]
    ours = []
    for file in graphs:
        given = dict(zip(names, session(file).run(names, seen.inputs), strict=True))
        part = vision.host.tokens(given, size, resolution)
        levels = part[DEEPSTACK][0] if DEEPSTACK in part else None
        ours.append(ImageTokens(layout, index, part[VISUAL_EMBEDS][0], levels))
    return seen, ours


def _compare(recipe: Recipe, model: Any, prompt: Prompt, ask: Ask, folder: Path) -> Parity:
    decoder, int4 = folder / GraphName("host", "decoder").file, recipe.precision.quantized
    rule = find_rule(recipe.checkpoint.family.positions)
    decoding = functools.partial(one_for_both, decoder)
    exact = functools.partial(decoding, IN_FLOAT32 if int4 else None)
    ours = functools.partial(walk, prompt=prompt, dims=recipe.dims, rule=rule)
    measured = ours(exact())
    expected, gap = _reference(model, ask, measured.tokens)
    difference = float(np.abs(measured.logits - expected).max())
    tolerance = max(1e-4, 3 * gap)
    agreeing = _same_tokens(measured.logits, expected, tolerance)
    if difference > tolerance or agreeing < len(expected):
        raise UnsupportedModel(
            f"the exported graph differs from the model by {difference:.1e} in its logits, "
            f"{tolerance:.1e} is allowed: this architecture is not exported faithfully"
        )
    fast = ours(decoding(IN_INT8), forced=measured.tokens) if int4 else None
    prompts = (
        _int8_prefill(ours, measured, folder) if recipe.config.prefill_precision == "int8" else None
    )
    graphs = watched(folder)
    narrow = ours(graphs, forced=measured.tokens[: _STANDARD_STEPS + 1])
    tower = None
    if prompt.rounded is not None:
        seen = replace(prompt, stream=prompt.rounded)
        tower = ours(exact(), prompt=seen, forced=measured.tokens)
    slots = None
    if recipe.config.kv_cache == INT8_SLOTS:
        slots = ours(exact(), forced=measured.tokens, kv_cache=INT8_SLOTS)
    others = [other.logits for other in (fast, prompts, narrow, tower, slots) if other is not None]
    moved = sum(_moved(measured.logits, rows) for rows in others)
    return Parity(
        logits=difference,
        allowed=tolerance,
        equal_tokens=agreeing,
        tokens=len(expected),
        int8_activations=None if fast is None else relative(measured.logits, fast.logits),
        int8_prefill=None if prompts is None else relative(measured.logits, prompts.logits),
        int8_tower=None if tower is None else relative(measured.logits, tower.logits),
        int8_slots=None if slots is None else relative(measured.logits, slots.logits),
        tolerance=max(_LEAST_TOLERANCE, _MARGIN * moved),
        overflow=graphs.overflow(),
    )


def _int8_prefill(ours: Callable[..., Walk], measured: Walk, folder: Path) -> Walk:
    """The walk whose prompt multiplies in int8.

    Raises UnsupportedModel where logits move too far.
    """
    graphs = one_for_both(folder / GraphName("int8", "decoder").file, IN_INT8)
    walked = ours(graphs, forced=measured.tokens)
    distance = relative(measured.logits, walked.logits)
    if not distance <= _MOST_INT8_PREFILL:
        raise UnsupportedModel(
            f"this model does not bear prompts in int8: its logits differ by {distance:.1%} of "
            f"their size, {_MOST_INT8_PREFILL:.0%} is allowed; leave out --prefill-precision"
        )
    return walked


def _moved(measured: Floats, other: Floats) -> float:
    """Largest difference of the likeliest tokens' logits, over the steps of `other`."""
    measured = measured[: len(other)]
    top = np.argsort(-measured, axis=1)[:, :_LIKELIEST]
    apart: float = np.abs(np.take_along_axis(measured - other, top, axis=1)).max()
    return float(apart)


def _reference(model: Any, ask: Ask, tokens: list[int]) -> tuple[Floats, float]:
    """Logits of the same steps by Hugging Face, and how far eager and sdpa lie apart there.

    Models whose attention scores are capped have no sdpa: the least tolerance then holds alone.
    """
    results = []
    for attention in ("eager", "sdpa") if model._supports_sdpa else ("eager",):
        model.set_attn_implementation(attention)
        with torch.no_grad():
            logits = model(**ask(tokens[:-1]), use_cache=False).logits[0, -len(tokens) :]
        results.append(logits.float().numpy())
    return results[0], float(np.abs(results[0] - results[-1]).max())


def _same_tokens(measured: Floats, expected: Floats, tolerance: float) -> int:
    """Steps whose greedy tokens agree, or where the expected top two are too close to tell."""
    top = np.sort(expected, -1)
    unclear = top[:, -1] - top[:, -2] <= 2 * tolerance
    return int((unclear | (measured.argmax(-1) == expected.argmax(-1))).sum())
