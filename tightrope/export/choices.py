"""An export's open questions answered for one checkpoint, before anything is traced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jinja2

from tightrope.bundle import Stage, VisionInfo
from tightrope.errors import InputError, UnsupportedModel
from tightrope.export.checkpoint import Checkpoint
from tightrope.export.config import ExportConfig
from tightrope.export.decoder import dims_of
from tightrope.export.schedules import SCHEDULES
from tightrope.export.selectors import SELECTORS
from tightrope.interface import Dims

_TOPK_LIMIT = 3840  # of TensorRT's TopK, which ranks slots and new tokens together
_QUESTION_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What is fixed in the bundle."""

    dims: Dims
    selectors: tuple[str, ...]
    schedules: dict[str, tuple[Stage, ...]]
    vision: VisionInfo | None
    preprocessor: dict[str, Any]
    """preprocessor.json; empty for a text model."""
    chat_template: str | None
    prefill_chunk: int
    standard_prefill: bool
    """Whether slots and new tokens together stay within TensorRT's TopK."""


def choose(source: Checkpoint, config: ExportConfig, tokenizer: Any) -> Choices:
    """Choices for `source`; raises InputError and UnsupportedModel naming what cannot be had."""
    dims = dims_of(source.config)
    selectors = _selectors(source, config)
    vision = _vision(source, config, selectors, tokenizer)
    chunk = config.prefill_chunk or _prefill_chunk(vision)
    return Choices(
        dims=dims,
        selectors=selectors,
        schedules=_schedules(source, config, dims),
        vision=vision,
        preprocessor=_preprocessor(source),
        chat_template=_chat_template(source, tokenizer),
        prefill_chunk=chunk,
        standard_prefill=config.slots + chunk < _TOPK_LIMIT,
    )


def notes_on(source: Checkpoint, config: ExportConfig, choices: Choices) -> list[str]:
    """Sentences for the summary about limits that the choices have."""
    notes = []
    if not choices.standard_prefill:
        notes.append(
            f"slots + prefill_chunk = {config.slots + choices.prefill_chunk} is not below "
            f"{_TOPK_LIMIT}: there is no standard prefill, TensorRT needs plugins"
        )
    if source.gguf:
        text = "GGUF weights were dequantised"
        if config.precision == "int4":
            text += " and quantised again: symmetric int4 is not the file's own code"
        notes.append(text)
    return notes


def _selectors(source: Checkpoint, config: ExportConfig) -> tuple[str, ...]:
    if source.family.vision is None:
        _refuse_for_text(source, config.selectors, "has no visual tokens to select")
        return ()
    available = source.family.vision.signals
    feedable = tuple(
        name for name, entry in SELECTORS.items() if set(entry.signals) <= set(available)
    )
    if config.selectors is None:
        return feedable
    for name in config.selectors:
        if name in SCHEDULES:
            raise InputError(f"{name} acts inside the language model: name it as a schedule")
        if name not in SELECTORS:
            raise InputError(f"selector is {name!r}; accepted: {', '.join(SELECTORS)}")
        if missing := set(SELECTORS[name].signals) - set(available):
            raise UnsupportedModel(
                f"selector {name} needs {', '.join(sorted(missing))}, which this tower does "
                f"not give; it can feed: {', '.join(feedable)}"
            )
    return tuple(dict.fromkeys(config.selectors))


def _schedules(
    source: Checkpoint, config: ExportConfig, dims: Dims
) -> dict[str, tuple[Stage, ...]]:
    if source.family.vision is None:
        _refuse_for_text(source, config.schedules, "has no visual tokens to select")
    chosen = {}
    for name in config.schedules:
        if name not in SCHEDULES:
            raise InputError(f"schedule is {name!r}; accepted: {', '.join(SCHEDULES)}")
        layers = SCHEDULES[name].layers
        if layers[-1] >= dims.num_hidden_layers:
            raise UnsupportedModel(
                f"schedule {name} acts at layer {layers[-1]}, the model has "
                f"{dims.num_hidden_layers} layers"
            )
        chosen[name] = tuple(Stage(method=name, layer=layer) for layer in layers)
    return chosen


def _vision(
    source: Checkpoint, config: ExportConfig, selectors: tuple[str, ...], tokenizer: Any
) -> VisionInfo | None:
    adapter = source.family.vision
    if adapter is None:
        _refuse_for_text(source, config.resolutions, "sees no images")
        return None
    needed = {signal for name in selectors for signal in SELECTORS[name].signals}
    signals = [signal for signal in adapter.signals if signal in needed]
    token = tokenizer.convert_ids_to_tokens(source.config.image_token_id)
    return adapter.info(source.config, config.resolutions, signals, token)


def _preprocessor(source: Checkpoint) -> dict[str, Any]:
    if source.family.vision is None:
        return {}
    processor = source.json("processor_config.json").get("image_processor")
    return source.family.vision.preprocessor(processor or source.json("preprocessor_config.json"))


def _chat_template(source: Checkpoint, tokenizer: Any) -> str | None:
    template = source.chat_template(tokenizer)
    if template is None:
        return None
    trial = [{"role": "user", "content": "?"}]
    try:
        tokenizer.apply_chat_template(trial, chat_template=template, tokenize=False)
    except jinja2.TemplateSyntaxError as error:
        raise UnsupportedModel(
            f"the chat template of {source.name} is not valid: {error}, line {error.lineno}; "
            "take it from where the checkpoint was published"
        ) from error
    except (jinja2.TemplateError, TypeError, ValueError):
        pass  # it may refuse this one conversation
    return template


def _refuse_for_text(source: Checkpoint, asked: object, why: str) -> None:
    if asked:
        raise UnsupportedModel(f"{source.name} is a text model: it {why}")


def _prefill_chunk(vision: VisionInfo | None) -> int:
    if vision is None:
        return 512
    # Selection inside the model needs an image and its question in one call.
    most = max(map(vision.tokens, vision.resolutions)) + _QUESTION_TOKENS
    return max(512, -(-most // 64) * 64)
