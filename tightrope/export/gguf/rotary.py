"""Rotary positions as llama.cpp computes them, in the words of a Hugging Face config."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tightrope.errors import UnsupportedModel
from tightrope.export.gguf.architectures import Architecture
from tightrope.export.gguf.file import GgufFile
from tightrope.export.gguf.keys import WAY_OUT, Keys
from tightrope.export.gguf.tensors import LONG_FACTORS, SHORT_FACTORS, dequantise

_BASE = 10000.0
"""Of the frequencies, where the file does not say."""


def rope_fields(
    keys: Keys, file: GgufFile, architecture: Architecture, head_dim: int, context: int
) -> dict[str, Any]:
    """Fields of the config; raises UnsupportedModel for what cannot be stated there."""
    rotated = keys.whole("rope.dimension_count", head_dim)
    if rotated > head_dim or (rotated != head_dim and not architecture.partial_rope):
        raise keys.wrong(
            "rope.dimension_count", rotated, f"{head_dim}, the length of a head's keys"
        )
    if architecture.partial_rope:
        return _partial(keys, file, rotated, head_dim, context)
    rule = _rule(keys, context)
    if architecture.growing_queries:
        rule["llama_4_scaling_beta"] = keys.number("attention.temperature_scale", 0.0)
        rule.setdefault("original_max_position_embeddings", context)
    if not architecture.local_rope:
        return {"rope_parameters": rule}
    local = {
        "rope_type": "default",
        "rope_theta": keys.number("rope.freq_base_swa", _BASE),
    }
    return {"rope_parameters": {"full_attention": rule, "sliding_attention": local}}


def _partial(
    keys: Keys, file: GgufFile, rotated: int, head_dim: int, context: int
) -> dict[str, Any]:
    """A part of each head, by factors for short and for long contexts where the file has them."""
    original = keys.whole("rope.scaling.original_context_length", context)
    factors = [file.tensors.get(name) for name in (SHORT_FACTORS, LONG_FACTORS)]
    kind = keys.take("rope.scaling.type", "longrope" if all(factors) else "none")
    # Half a row more, so that transformers rounds down to this number of rows.
    rule: dict[str, Any] = {"partial_rotary_factor": min(1.0, (rotated + 0.5) / head_dim)}
    rule["rope_theta"] = keys.number("rope.freq_base", _BASE)
    if kind == "longrope" and all(factors):
        rule["attention_factor"] = keys.number("rope.scaling.attn_factor", 1.0)
        rule["original_max_position_embeddings"] = original
        for name, tensor in zip(("short_factor", "long_factor"), factors, strict=True):
            values = dequantise(tensor)
            if values.shape != (rotated // 2,) or not (np.isfinite(values) & (values > 0)).all():
                raise UnsupportedModel(
                    f"{file.path} has a {name} of shape {list(values.shape)}; accepted: "
                    f"[{rotated // 2}] numbers above 0; {WAY_OUT}"
                )
            rule[name] = values.tolist()
    elif kind != "none" or any(factors):
        raise keys.wrong("rope.scaling.type", kind, "longrope with its factors, or none")
    return {
        "rope_parameters": rule | {"rope_type": "default" if kind == "none" else kind},
        "original_max_position_embeddings": original,
    }


def _rule(keys: Keys, context: int) -> dict[str, Any]:
    """One rule for all rows of a head: none, linear or yarn scaling."""
    theta = keys.number("rope.freq_base", _BASE)
    kind = keys.take("rope.scaling.type", "linear")
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0)) or 1.0
    original = keys.whole("rope.scaling.original_context_length", context)
    scale = keys.number("rope.scaling.attn_factor", 1.0)
    yarn = {
        name: keys.number(f"rope.scaling.yarn_{name}", default)
        for name, default in (
            ("ext_factor", -1.0),
            ("attn_factor", -1.0),
            ("beta_fast", 32.0),
            ("beta_slow", 1.0),
            ("log_multiplier", 0.0),
        )
    }
    if kind not in ("none", "linear", "yarn"):
        raise keys.wrong("rope.scaling.type", kind, "none, linear, yarn")
    if theta <= 0 or factor <= 0:
        raise keys.wrong("rope.scaling.factor", factor, "more than 0")
    usual = float(kind == "yarn")
    if yarn["ext_factor"] not in (-1.0, usual):
        raise keys.wrong("rope.scaling.yarn_ext_factor", yarn["ext_factor"], f"{usual}")
    if kind == "yarn":
        # The converter writes the checkpoint's attention_factor and bounds, which llama.cpp then
        # passes over for these architectures: the checkpoint is right.
        length = yarn["attn_factor"]
        if length == -1.0:
            length = scale * _magnitude(factor) / _magnitude(factor, yarn["log_multiplier"])
        return {
            "rope_type": "yarn",
            "rope_theta": theta,
            "factor": factor,
            "original_max_position_embeddings": original,
            "beta_fast": yarn["beta_fast"],
            "beta_slow": yarn["beta_slow"],
            "attention_factor": length,
        }
    for name, value in (("attn_factor", scale), ("yarn_attn_factor", yarn["attn_factor"])):
        if value not in (-1.0, 1.0):
            raise keys.wrong(f"rope.scaling.{name}", value, "1.0, but for the type yarn")
    if kind == "none" or factor == 1.0:
        return {"rope_type": "default", "rope_theta": theta}
    return {"rope_type": "linear", "rope_theta": theta, "factor": factor}


def _magnitude(factor: float, weight: float = 1.0) -> float:
    """By how much yarn lengthens queries and keys: 0.1 ln(factor) + 1, arXiv:2309.00071."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0
