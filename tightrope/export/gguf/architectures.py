"""The architectures of GGUF files that are read: one entry each.

Keys and tensor names are those of llama.cpp's llama-arch.cpp; which rows are permuted is what its
converters do (conversion/llama.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tightrope.errors import UnsupportedModel

_WEIGHTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ENDS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How the files of one `general.architecture` map to a Hugging Face model."""

    name: str
    model_type: str
    layer: Mapping[str, str]
    """Tensor of a layer, without `blk.N.` and `.weight` -> module inside `model.layers.N`."""
    whole: Mapping[str, str]
    """Tensor outside layers -> parameter."""
    permuted: tuple[str, ...] = ()
    """Tensors whose rows are interleaved for rotary positions, weights and biases."""
    optional_biases: Mapping[str, tuple[str, ...]]
    """Field of the config ("" if there is none) -> tensors that then have biases; one that the
    file leaves out is zero."""
    windows: bool = False
    """Whether the model can have layers that see a window only."""


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="llama",
            model_type="llama",
            layer=_WEIGHTS,
            whole=_ENDS,
            permuted=("attn_q", "attn_k"),
            optional_biases={
                "attention_bias": ("attn_q", "attn_k", "attn_v", "attn_output"),
                "mlp_bias": ("ffn_gate", "ffn_up", "ffn_down"),
            },
        ),
        Architecture(
            name="qwen2",
            model_type="qwen2",
            layer=_WEIGHTS,
            whole=_ENDS,
            optional_biases={"": ("attn_q", "attn_k", "attn_v")},
            windows=True,
        ),
    )
}


def find_architecture(name: str) -> Architecture:
    """Raises UnsupportedModel with those there are."""
    if name not in ARCHITECTURES:
        raise UnsupportedModel(
            f"GGUF files of architecture {name!r} have no reader; there are: "
            f"{', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]
