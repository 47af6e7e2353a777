"""Small text models of the families, as fields of their configs: odd widths, every kind of layer.

Llama and Qwen2 are `checkpoints.py`'s and, with all that is odd, `export/gguf/test_export.py`'s.
Nothing here imports anything: the table is read by sessions without torch too.
"""

from __future__ import annotations

from typing import Any

COMMON: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 45,
    "intermediate_size": 70,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 14,
    "max_position_embeddings": 8192,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
WINDOW = 21
"""Shorter than a chunk, and no multiple of anything."""
ALTERNATE = ("sliding_attention", "full_attention", "sliding_attention")
TEXT_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": (
        "qwen3",
        {"num_attention_heads": 6, "num_key_value_heads": 3, "tie_word_embeddings": True},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        {
            "num_hidden_layers": 3,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 22,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],
        },
    ),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "ministral": (
        "ministral",
        {"num_hidden_layers": 3, "sliding_window": WINDOW, "layer_types": list(ALTERNATE)},
    ),
    "ministral3": (
        "ministral3",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.4,
            },
        },
    ),
    "smollm3": (
        "smollm3",
        {"num_hidden_layers": 3, "no_rope_layer_interval": 2, "tie_word_embeddings": True},
    ),
    "gemma2": (
        "gemma2",
        {
            "num_hidden_layers": 3,
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 9,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        "gemma3_text",
        {
            "num_hidden_layers": 3,
            "sliding_window": WINDOW,
            "layer_types": list(ALTERNATE),
            "query_pre_attn_scalar": 9,
            "final_logit_softcapping": 4.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "phi3": (
        "phi3",
        {
            "hidden_size": 42,
            "sliding_window": WINDOW,
            "original_max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0],
                "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0],
            },
        },
    ),
    "granite": (
        "granite",
        {
            "attention_multiplier": 0.3,
            "embedding_multiplier": 1.7,
            "residual_multiplier": 0.4,
            "logits_scaling": 2.5,
        },
    ),
    "lfm2": (
        "lfm2",
        {
            "hidden_size": 42,
            "num_hidden_layers": 5,
            "layer_types": ["conv", "full_attention", "conv", "conv", "full_attention"],
            "conv_bias": True,
            "block_multiple_of": 8,
        },
    ),
}
"""Name -> model type, and what it has beside COMMON."""
WITHOUT_HEAD_DIM = ("phi3", "lfm2")
"""Whose configs have no such field: heads are as wide as the model's share."""


def fields_of(name: str) -> tuple[str, dict[str, Any]]:
    """Model type and arguments of the config."""
    model_type, own = TEXT_FAMILIES[name]
    fields = COMMON | own
    if name in WITHOUT_HEAD_DIM:
        del fields["head_dim"]
    return model_type, fields
