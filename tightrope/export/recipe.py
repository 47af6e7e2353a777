"""All that is fixed in a bundle, answered for one checkpoint before anything is traced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jinja2

from tightrope.bundle import Stage
from tightrope.checks import check_one_of
from tightrope.errors import InputError, UnsupportedModel
from tightrope.export.accounting import notes
from tightrope.export.checkpoint import Checkpoint
from tightrope.export.config import PRECISIONS, ExportConfig, Precision
from tightrope.export.families.hybrids import CONVOLUTION
from tightrope.export.families.tower import TowerModel
from tightrope.export.folder import refuse_code
from tightrope.export.schedules import SCHEDULES
from tightrope.export.selectors import SELECTORS
from tightrope.inputs.positions import AXES
from tightrope.inputs.prepare import Tower, VisionInfo, create_tower
from tightrope.interface.tensors import DEEPSTACK, Dims
from tightrope.jetson.probe import INT8_EXTENSIONS, int8_products, read_cpu_flags

_QUESTION_TOKENS, _LONG_CHUNK = 128, 1024
_PROCESSOR, _PREPROCESSOR = "processor_config.json", "preprocessor_config.json"


@dataclass(frozen=True, slots=True)
class Vision:
    """Both halves of the vision tower."""

    info: VisionInfo
    model: TowerModel
    """Torch: what is traced."""
    host: Tower
    """Numpy: rows, ranges, layout, and how images become inputs."""


@dataclass(frozen=True, slots=True)
class TowerProducts:
    """How the host's tower is to multiply."""

    int8: bool
    """Whether int8 is tried."""
    notes: tuple[str, ...] = ()
    """Why it is not, where it might have been."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What every stage of an export works from."""

    checkpoint: Checkpoint
    config: ExportConfig
    tokenizer: Any
    precision: Precision
    dims: Dims
    vision: Vision | None
    tower: TowerProducts
    selectors: tuple[str, ...]
    schedules: dict[str, tuple[Stage, ...]]
    preprocessor: dict[str, Any]
    """preprocessor.json; empty for a text model."""
    chat_template: str | None
    prefill_chunk: int
    max_positions: int | None
    """Tokens that the rotary frequencies hold for; None where they never end."""

    def notes(self, model: Any) -> list[str]:
        """Sentences for the summary: what the recipe costs, and what has no effect."""
        said = notes(self.checkpoint.without_effect)
        if not self.checkpoint.end_ids(model):
            said.append("the checkpoint names no end of an answer: answers end at max_tokens")
        if (kind := self.checkpoint.codes) and not self.precision.quantized:
            said.insert(0, f"{kind} weights were dequantised")
        return said


def plan(checkpoint: Checkpoint, config: ExportConfig) -> Recipe:
    """The recipe; raises InputError and UnsupportedModel naming what cannot be had."""
    tokenizer = checkpoint.tokenizer()
    selectors = _selectors(checkpoint, config)
    preprocessor = _preprocessor(checkpoint)
    vision = _vision(checkpoint, config, selectors, tokenizer, preprocessor)
    dims = _dims(checkpoint, vision)
    return Recipe(
        checkpoint=checkpoint,
        config=config,
        tokenizer=tokenizer,
        precision=PRECISIONS[config.precision],
        dims=dims,
        vision=vision,
        tower=_tower_products(checkpoint, config),
        selectors=selectors,
        schedules=_schedules(checkpoint, config, dims),
        preprocessor=preprocessor,
        chat_template=_chat_template(checkpoint, tokenizer, config.template),
        prefill_chunk=_prefill_chunk(config, vision, dims),
        max_positions=_max_positions(checkpoint.config),
    )


def _dims(checkpoint: Checkpoint, vision: Vision | None) -> Dims:
    """Decoder sizes of a Hugging Face config, and what its tower adds to them."""
    text = checkpoint.config.get_text_config()
    heads = text.num_attention_heads
    rows = () if vision is None else vision.host.output_rows(text.hidden_size)
    levels = [row.axes[2] for row in rows if row.name == DEEPSTACK]
    convolutions = list(getattr(text, "layer_types", None) or ()).count(CONVOLUTION)
    if convolutions == text.num_hidden_layers:
        raise UnsupportedModel("all layers are short convolutions; accepted: some that attend")
    return Dims(
        num_hidden_layers=text.num_hidden_layers - convolutions,
        num_attention_heads=heads,
        num_key_value_heads=text.num_key_value_heads or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        hidden_size=text.hidden_size,
        vocab_size=text.vocab_size,
        rope_axes=AXES[checkpoint.family.positions],
        deepstack=int(levels[0]) if levels else 0,
        reach=checkpoint.family.reach,
        conv_layers=convolutions,
        conv_inputs=text.conv_L_cache - 1 if convolutions else 0,
    )


def _selectors(checkpoint: Checkpoint, config: ExportConfig) -> tuple[str, ...]:
    if checkpoint.family.tower is None:
        _refuse_for_text(checkpoint, config.selectors, "has no visual tokens to select")
        return ()
    available = checkpoint.family.tower.signals(checkpoint.config)
    feedable = tuple(
        name for name, entry in SELECTORS.items() if set(entry.signals) <= set(available)
    )
    if config.selectors is None:
        return feedable
    for name in config.selectors:
        if name in SCHEDULES:
            raise InputError(f"{name} acts inside the language model: name it as a schedule")
        check_one_of("selector", name, SELECTORS)
        if missing := set(SELECTORS[name].signals) - set(available):
            raise UnsupportedModel(
                f"selector {name} needs {', '.join(sorted(missing))}, which this tower does "
                f"not give; it can feed: {', '.join(feedable)}"
            )
    return tuple(dict.fromkeys(config.selectors))


def _schedules(
    checkpoint: Checkpoint, config: ExportConfig, dims: Dims
) -> dict[str, tuple[Stage, ...]]:
    if checkpoint.family.tower is None:
        _refuse_for_text(checkpoint, config.schedules, "has no visual tokens to select")
    chosen = {}
    for name in config.schedules:
        check_one_of("schedule", name, SCHEDULES)
        layers, shares = SCHEDULES[name].layers, SCHEDULES[name].shares
        if layers[-1] >= dims.num_hidden_layers:
            raise UnsupportedModel(
                f"schedule {name} acts at layer {layers[-1]}, the model has "
                f"{dims.num_hidden_layers} layers"
            )
        chosen[name] = tuple(
            Stage(layer=layer, share=share) for layer, share in zip(layers, shares, strict=True)
        )
    return chosen


def _vision(
    checkpoint: Checkpoint,
    config: ExportConfig,
    selectors: tuple[str, ...],
    tokenizer: Any,
    preprocessor: dict[str, Any],
) -> Vision | None:
    model = checkpoint.family.tower
    if model is None:
        _refuse_for_text(checkpoint, config.resolutions, "sees no images")
        return None
    needed = {signal for name in selectors for signal in SELECTORS[name].signals}
    available = model.signals(checkpoint.config)
    signals = [signal for signal in available if signal in needed]
    placeholder = checkpoint.config.image_token_id
    token = tokenizer.convert_ids_to_tokens(placeholder)
    if not isinstance(token, str):
        raise UnsupportedModel(
            f"image_token_id is {placeholder}, which is none of the tokenizer's {len(tokenizer)} "
            "tokens: config.json and tokenizer.json do not belong together"
        )
    info = model.info(
        checkpoint.config, config.resolutions, signals, token, preprocessor, tokenizer
    )
    return Vision(info, model, create_tower(info))


def _tower_products(checkpoint: Checkpoint, config: ExportConfig) -> TowerProducts:
    """Raises UnsupportedModel where int8 is asked for and cannot be."""
    asked = config.tower_precision == "int8"
    if checkpoint.family.tower is None:
        _refuse_for_text(checkpoint, asked, "has no tower to multiply in int8")
        return TowerProducts(False)
    if config.tower_precision == "fp32":
        return TowerProducts(False)
    if int8_products(read_cpu_flags()) is not None:
        return TowerProducts(True)
    lacking = f"this processor has none of {', '.join(INT8_EXTENSIONS)}"
    if asked:
        raise UnsupportedModel(
            f"tower_precision is int8, but {lacking}: sums of products would be wrong; accepted "
            "here: fp32, auto"
        )
    return TowerProducts(False, (f"the tower multiplies in float32: {lacking}",))


def _preprocessor(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.family.tower is None:
        return {}
    whole, alone = (checkpoint.json(file) for file in (_PROCESSOR, _PREPROCESSOR))
    inside = whole.get("image_processor") or {}
    for file, content in ((_PROCESSOR, whole), (_PROCESSOR, inside), (_PREPROCESSOR, alone)):
        refuse_code(file, content)
    stored = inside or alone
    preprocessor, without_effect = checkpoint.family.tower.preprocessor(
        checkpoint.config, checkpoint.folder, stored
    )
    checkpoint.without_effect.extend(without_effect)
    return preprocessor


def _chat_template(checkpoint: Checkpoint, tokenizer: Any, name: str | None) -> str | None:
    template = checkpoint.chat_template(tokenizer, name)
    if template is None:
        return None
    trial = [{"role": "user", "content": "?"}]
    try:
        tokenizer.apply_chat_template(trial, chat_template=template, tokenize=False)
    except jinja2.TemplateSyntaxError as error:
        raise UnsupportedModel(
            f"the chat template of {checkpoint.name} is not valid: {error}, line {error.lineno}; "
            "take it from where the checkpoint was published"
        ) from error
    except Exception:  # a template is a program: it may refuse this one conversation in any way
        pass
    return template


def _refuse_for_text(checkpoint: Checkpoint, asked: object, why: str) -> None:
    if asked:
        raise UnsupportedModel(f"{checkpoint.name} is a text model: it {why}")


def _prefill_chunk(config: ExportConfig, vision: Vision | None, dims: Dims) -> int:
    if vision is None:
        return config.prefill_chunk or 512
    most = max(map(vision.host.most_tokens, vision.info.resolutions))
    if config.prefill_chunk:
        if dims.reach and most > config.prefill_chunk:
            raise InputError(
                f"prefill_chunk is {config.prefill_chunk}; accepted: {most} or more, because the "
                "tokens of an image attend to one another and stand in one call"
            )
        return config.prefill_chunk
    whole = max(512, -(-(most + _QUESTION_TOKENS) // 64) * 64)
    # Selection inside the model needs an image and its question in one call; else a call of many
    # tiles would only take memory, which grows with the square of its tokens.
    return whole if config.schedules or dims.reach else min(whole, _LONG_CHUNK)


def _max_positions(config: Any) -> int | None:
    """Longrope has frequencies for short conversations and others for long ones, beyond this.

    transformers changes between them in the middle, when the keys of before are already stored.
    """
    rule = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if rule.get("rope_type") != "longrope":
        return None
    return int(rule["original_max_position_embeddings"])
