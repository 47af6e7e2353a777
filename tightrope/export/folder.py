"""What a Hugging Face folder must not say, because nothing here follows it."""

from __future__ import annotations

import re
from typing import Any

from tightrope.checks import shown
from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import Account, Harmless, WithoutEffect, listed
from tightrope.export.families import FAMILIES
from tightrope.export.families.hybrids import refuse_layers
from tightrope.export.weight_files import is_plain

HARMLESS_TENSORS = (
    Harmless(r".*rotary_emb\.inv_freq", "rotary_emb.inv_freq follows from config.json"),
    Harmless(r".*\.position_ids", "position_ids count from 0"),
)
_SILENT = (r"rotary_emb\.inv_freq", r"(^|\.)position_ids$")
_TAKEN = {
    "default": ("rope_theta",),
    "linear": ("rope_theta", "factor"),
    "llama3": (
        "rope_theta", "factor", "low_freq_factor", "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "yarn": (
        "rope_theta", "factor", "original_max_position_embeddings", "attention_factor",
        "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
    ),
    "longrope": (
        "rope_theta", "factor", "original_max_position_embeddings", "attention_factor",
        "short_factor", "long_factor",
    ),
}  # fmt: skip
"""What transformers reads of each kind of rotary positions."""
_MOST = {
    "num_hidden_layers": 1 << 12,
    **dict.fromkeys(
        (
            "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
            "head_dim", "patch_size", "image_size", "num_channels", "projection_dim",
            "num_experts", "num_experts_per_tok", "moe_intermediate_size",
        ),
        1 << 20,
    ),
    "vocab_size": 1 << 26,
}  # fmt: skip
"""Of what a model's size follows from; far beyond any that fits a board."""
LENGTH_DEPENDENT = ("dynamic",)
"""Kinds whose frequencies follow the longest prompt so far."""
_INTERLEAVED = {"qwen2_5_vl": False, "qwen3_vl": True}
"""Models with M-RoPE, and whether the frequencies of its axes take turns."""
_SECTIONED = ("mrope", "axial")
"""What such models call the default, in the language model and in the tower."""
_HARMLESS_ROPE = (Harmless("finetuned", "finetuned is a remark"),)


def check_config(config: dict[str, Any]) -> list[WithoutEffect]:
    """Entries of config.json that are without effect.

    Raises UnsupportedModel for sizes that no model has, parts that are quantised apart, code of
    its own, layers that do more than attend backwards, and rotary positions that transformers would
    not compute as the file says.
    """
    found = []
    interleaved = _INTERLEAVED.get(str(config.get("model_type")))
    for part in (config, config.get("text_config") or {}, config.get("vision_config") or {}):
        if isinstance(part, dict):
            _check_sizes(part)
            if part is not config:
                _refuse_quantised(part)
            refuse_code("config.json", part)
            family = FAMILIES.get(str(part.get("model_type")))
            refuse_layers(part.get("layer_types"), () if family is None else family.layers)
            _refuse_both_ways(part)
            found += _check_rope(part, interleaved)
    return found


def _check_sizes(config: dict[str, Any]) -> None:
    """Before transformers makes lists and modules of that length."""
    for name, most in _MOST.items():
        if (value := config.get(name)) is None:
            continue
        # Pictures and patches may have two sides.
        two = name in ("image_size", "patch_size") and isinstance(value, list) and len(value) == 2
        for number in value if two else (value,):
            if type(number) is not int or not 0 <= number <= most:
                raise UnsupportedModel(
                    f"config.json has {name} {shown(value)}; accepted: a whole number up to {most}"
                )


def _refuse_quantised(config: dict[str, Any]) -> None:
    for key in ("quantization_config", "compression_config"):
        if quantised := config.get(key):
            method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
            raise UnsupportedModel(
                f"the checkpoint is quantised by {method or 'an unnamed method'} ({key}), which "
                "is not read here; take the one that it was made from"
            )


def refuse_code(file: str, content: dict[str, Any]) -> None:
    """Raises UnsupportedModel where a JSON file names classes of the checkpoint's own."""
    for key, what in (("auto_map", "an auto_map"), ("trust_remote_code", "trust_remote_code")):
        if content.get(key):
            raise UnsupportedModel(
                f"{file} has {what}: the checkpoint needs code of its own, which is never run; "
                "take a version that transformers knows by itself"
            )


def _refuse_both_ways(config: dict[str, Any]) -> None:
    if config.get("use_bidirectional_attention") or config.get("is_causal") is False:
        raise UnsupportedModel(
            "config.json says that tokens attend to later ones: such a model writes no answers; "
            "take one that does"
        )


def _check_rope(config: dict[str, Any], interleaved: bool | None) -> list[WithoutEffect]:
    """interleaved: of M-RoPE; None for a model whose positions have one axis."""
    found = []
    family = FAMILIES.get(str(config.get("model_type")))
    own = () if family is None else family.rope_keys
    for key in ("rope_scaling", "rope_parameters"):
        values = config.get(key)
        if not isinstance(values, dict):
            continue
        # Layers of each type may have a rule of their own.
        apart = [name for name in own if isinstance(values.get(name), dict)]
        if apart:
            rest = Account(f"keys of {key}", values)
            rest.take_all(apart)
            found += rest.close()
        for rule in [values[name] for name in apart] or [values]:
            found += _check_rule(key, rule, own, interleaved)
    partial = config.get("partial_rotary_factor")
    if partial not in (None, 1.0) and "partial_rotary_factor" not in own:
        raise UnsupportedModel(f"partial_rotary_factor is {partial!r}; accepted: 1.0")
    return found


def _check_rule(
    key: str, values: dict[str, Any], own: tuple[str, ...], interleaved: bool | None
) -> list[WithoutEffect]:
    """own: what the family's code reads beside the keys of the kind."""
    account = Account(f"keys of {key}", values, _HARMLESS_ROPE)
    kinds = [account.take(name) for name in ("rope_type", "type")]
    if interleaved is not None:
        account.take("mrope_section")
        if account.take("mrope_interleaved", interleaved) is not interleaved:
            raise UnsupportedModel(f"{key} has another mrope_interleaved than {interleaved}")
        kinds = ["default" if kind in _SECTIONED else kind for kind in kinds]
    kind = next((kind for kind in kinds if kind is not None), "default")
    if None not in kinds and kinds[0] != kinds[1]:
        raise UnsupportedModel(f"{key} has rope_type {kinds[0]!r} and type {kinds[1]!r}")
    if kind in LENGTH_DEPENDENT:
        raise UnsupportedModel(
            f"rope_type is {kind!r}: its frequencies change with the prompt's length, which a "
            f"graph cannot follow; accepted: {', '.join(_TAKEN)}"
        )
    if kind not in _TAKEN:
        raise UnsupportedModel(f"rope_type is {kind!r}; accepted: {', '.join(_TAKEN)}")
    if values.get("partial_rotary_factor") in (None, 1.0):
        account.take("partial_rotary_factor")
    account.take_all((*_TAKEN[kind], *own))
    return account.close()


def account_tensors(
    model: Any, stored: dict[str, str], unexpected: set[str]
) -> list[WithoutEffect]:
    """Stored tensors that are without effect, after `model` was loaded of them.

    stored: name -> dtype; unexpected: what transformers found no place for. Raises
    UnsupportedModel naming tensors without a place, and parameters that are not stored as floats.
    """
    # transformers leaves names that match these patterns of a class out of its report.
    silent = [*(model._keys_to_ignore_on_load_unexpected or ()), *_SILENT]
    passed_over = {
        name
        for name in stored.keys() - model.state_dict().keys()
        if any(re.search(pattern, name) for pattern in silent)
    }
    account = Account(
        "tensors of the checkpoint",
        dict.fromkeys(sorted(unexpected | passed_over)),
        HARMLESS_TENSORS,
        "config.json is of another model, or the model needs code that is not here",
    )
    without_effect = account.close()
    left = unexpected | passed_over
    if coded := [n for n, dtype in stored.items() if n not in left and not is_plain(dtype)]:
        raise UnsupportedModel(
            f"weights that are no plain floats: {listed([f'{n} {stored[n]}' for n in coded])}; "
            "take a checkpoint that is not quantised"
        )
    return without_effect


def check_tied(model: Any) -> None:
    """Raises UnsupportedModel where config.json ties a head that is stored with other values."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if model.config.tie_word_embeddings and head.weight is not table.weight:
        raise UnsupportedModel(
            "lm_head.weight is not the embeddings, though config.json ties the two: set "
            "tie_word_embeddings to false there"
        )
