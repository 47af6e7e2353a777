"""A calibration set: prompts that a model is likely to see, and what it is called with for them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import PIL.Image
import torch

from tightrope.checks import shown
from tightrope.errors import InputError
from tightrope.export.late import LateModel
from tightrope.export.originals import asked, look
from tightrope.export.recipe import Recipe

PROMPTS, TOKENS = 24, 256
"""Prompts that are taken, and tokens of each at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A conversation, or text as it stands."""

    messages: tuple[dict[str, str], ...] = ()
    """{"role", "content"}, the model's last answer included where it is known."""
    image: Path | None = None
    """What the first turn shows."""
    text: str = ""
    """Without messages."""


def read_text(file: Path) -> list[Sample]:
    """A text file as samples of one paragraph or more; raises InputError for one without text."""
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(
            f"the calibration set {shown(str(file))} cannot be read ({error}); accepted: a text in "
            "UTF-8, or a task's folder"
        ) from error
    if not content.strip():
        raise InputError(f"the calibration set {shown(str(file))} has no text")
    return [Sample(text=content)]


def prompts(
    recipe: Recipe, late: LateModel, samples: Sequence[Sample]
) -> list[dict[str, torch.Tensor]]:
    """What the model is called with, drawn from `samples` by the config's seed.

    Raises InputError where the samples have no text, or show what the model cannot see.
    """
    ids = [(tokens, sample) for sample in samples for tokens in _pieces(recipe, sample)]
    if not ids:
        raise InputError("the calibration set has no text; give a text, or a task with questions")
    order = np.random.default_rng(recipe.config.seed).permutation(len(ids))[:PROMPTS]
    found = []
    with late.computing():
        for place in np.sort(order):
            tokens, sample = ids[place]
            found.append(_called_with(recipe, late.model, tokens, sample))
    return found


def _pieces(recipe: Recipe, sample: Sample) -> list[list[int]]:
    """Token ids of a sample, in pieces where it is long."""
    if sample.image is not None and recipe.vision is None:
        raise InputError(
            f"the calibration set shows {shown(str(sample.image))}, and {recipe.checkpoint.name} "
            "is a text model; give a text, or a task without images"
        )
    tokenizer = recipe.tokenizer.backend_tokenizer
    if not sample.messages:
        ids: list[int] = tokenizer.encode(sample.text).ids
        return [ids[first : first + TOKENS] for first in range(0, len(ids), TOKENS)]
    ids = tokenizer.encode(_rendered(recipe, sample), add_special_tokens=False).ids
    return [ids[:TOKENS]] if ids else []


def _rendered(recipe: Recipe, sample: Sample) -> str:
    """The conversation by the chat template, its image's placeholder in the first question."""
    info = None if recipe.vision is None else recipe.vision.info
    marker = "" if info is None else info.image_token
    messages = [dict(message) for message in sample.messages]
    for message in messages:
        message["content"] = message["content"].replace(marker or "\0", "")
    if sample.image is not None:
        first = next(message for message in messages if message["role"] == "user")
        first["content"] = f"{marker} {first['content']}"
    if recipe.chat_template is None:
        return "\n".join(message["content"] for message in messages)
    rendered: list[str] = []
    # Some templates read a string, others a list of parts.
    for content in (lambda text: text, lambda text: [{"type": "text", "text": text}]):
        given = [message | {"content": content(message["content"])} for message in messages]
        with contextlib.suppress(jinja2.TemplateError, TypeError):
            rendered.append(
                recipe.tokenizer.apply_chat_template(
                    given, chat_template=recipe.chat_template, tokenize=False
                )
            )
    wanted = messages[-1]["content"]
    found = next((text for text in rendered if wanted in text), wanted)
    return found.replace(info.image_token, info.image_text) if info and info.image_text else found


def _called_with(
    recipe: Recipe, model: Any, tokens: list[int], sample: Sample
) -> dict[str, torch.Tensor]:
    if sample.image is None or recipe.vision is None:
        return {"input_ids": torch.tensor([tokens])}
    try:
        with PIL.Image.open(sample.image) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError) as error:
        raise InputError(
            f"the calibration set shows {shown(str(sample.image))}, which cannot be read ({error})"
        ) from error
    seen = look(recipe, recipe.vision, model, picture)
    return asked(recipe, model, tokens, seen)([])
