"""Decoders that are refused by name: layers whose memory is a state of constant size.

Of these, short convolutions are served; what the others would take: docs/hybrid.md.
"""

from __future__ import annotations

from tightrope.errors import UnsupportedModel

_LAYERS = {
    "linear_attention (a gated delta rule)": (
        "qwen3_next qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text olmo_hybrid kimi_linear"
    ),
    "linear_attention (lightning attention)": "minimax bailing_hybrid",
    "conv": "lfm2_moe lfm2_vl lfm3 lfm3_vl",
    "mamba": (
        "jamba granitemoehybrid bamba falcon_h1 nemotron_h zamba zamba2 mamba mamba2 falcon_mamba"
    ),
    "recurrent": "recurrent_gemma rwkv",
}
"""Layer type -> model types of transformers that have such layers."""
HYBRIDS = {name: layer for layer, names in _LAYERS.items() for name in names.split()}
SERVED_LAYERS = ("full_attention", "sliding_attention")
"""Layer types whose memory is slots."""
CONVOLUTION = "conv"
"""Layer type whose memory is the last inputs of a convolution; some families have it."""


def refuse_hybrid(model_type: object) -> None:
    """Raises UnsupportedModel for a model type that has layers without slots."""
    if isinstance(model_type, str) and model_type in HYBRIDS:
        raise UnsupportedModel(
            f"model type {model_type!r} has layers of type {HYBRIDS[model_type]}, whose memory is "
            "a state of constant size, which no graph here holds; take a model without such layers"
        )


def refuse_layers(layer_types: object, own: tuple[str, ...]) -> None:
    """Raises UnsupportedModel for the first of config.json's `layer_types` that is not served.

    own: those of the family beside the common ones.
    """
    served = (*SERVED_LAYERS, *own)
    for kind in layer_types if isinstance(layer_types, list) else ():
        if kind not in served:
            raise UnsupportedModel(
                f"config.json has layers of type {kind!r}; accepted: {', '.join(served)}"
            )
