"""The architectures of GGUF files that are read: one entry each.

Keys and tensor names are those of llama.cpp's llama-arch.cpp; what changes on the way into a file
(rows that are permuted, norms that have 1 added, parts that are joined) is what its converters do
(the folder conversion/), what a file does not say is what its loaders take (src/models/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tightrope.errors import UnsupportedModel

_QUERIES_KEYS = ("attn_q", "attn_k")
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_FEED_FORWARD = {
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WEIGHTS = _NORMS | _ATTENTION | _FEED_FORWARD
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_FOUR_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_ENDS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LFM2_ENDS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "token_embd_norm.weight": "model.embedding_norm.weight",
    "output.weight": "lm_head.weight",
}
_ATTENTION_BIASES = {"attention_bias": ("attn_q", "attn_k", "attn_v", "attn_output")}
_ALL_BIASES = _ATTENTION_BIASES | {"mlp_bias": ("ffn_gate", "ffn_up", "ffn_down")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How the files of one `general.architecture` map to a Hugging Face model."""

    name: str
    model_type: str
    layer: Mapping[str, str]
    """Tensor of a layer, without `blk.N.` and `.weight` -> module inside `model.layers.N`."""
    whole: Mapping[str, str] = field(default_factory=lambda: _ENDS)
    """Tensor outside layers -> parameter."""
    experts: Mapping[str, str] = field(default_factory=dict)
    """The same for tensors of all experts of a layer -> parameter; those of one parameter are its
    parts, in this order, joined along their rows."""
    permuted: tuple[str, ...] = ()
    """Tensors whose rows are interleaved for rotary positions, weights and biases."""
    epsilon: str = "rms_norm_eps"
    """Field of the config for the epsilon of norms."""
    norms_with_one: bool = False
    """Whether norms are stored with the 1 that the model's code adds to them."""
    optional_biases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Field of the config ("" if there is none) -> tensors that then have biases; one that the
    file leaves out is zero."""
    windows: bool = False
    """Whether the model can have layers that see a window only."""
    pattern: int | None = None
    """Where the file does not say which: all but each such layer, 0: all; None: it has to say."""
    local_rope: bool = False
    """Whether layers that see a window only have rotary positions of their own."""
    partial_rope: bool = False
    """Whether a part of each head may be rotated, and by factors for long contexts."""
    numbers: Mapping[str, tuple[str, float | None]] = field(default_factory=dict)
    """Field of the config -> key, and what holds where the file has none (None: it has to have it);
    0 is no such number at all."""
    constants: Mapping[str, object] = field(default_factory=dict)
    """Fields of the config that all files of the architecture have in common."""
    only: Mapping[str, object] = field(default_factory=dict)
    """Keys that may be left out and have one value that is followed here."""
    convolutions: bool = False
    """Whether layers without heads of keys and values are short convolutions, whose kernels [E,1,L]
    are stored as [E,L]."""
    growing_queries: bool = False
    """Whether queries may grow with their place, in steps of the context of before."""
    of_images: tuple[str, ...] = ()
    """Keys that change nothing of a text."""
    head_lengths: tuple[str, ...] = ()
    """Fields of the config that are the length of a head."""
    shared_lengths: int | None = None
    """Layers of a model that llama.cpp scales by the share of a head in the model's width: its
    `head_lengths` are that, and not the length of a head."""


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="llama",
            model_type="llama",
            layer=_WEIGHTS,
            permuted=_QUERIES_KEYS,
            optional_biases=_ALL_BIASES,
        ),
        Architecture(
            name="qwen2",
            model_type="qwen2",
            layer=_WEIGHTS,
            optional_biases={"": ("attn_q", "attn_k", "attn_v")},
            windows=True,
        ),
        Architecture(
            name="qwen3",
            model_type="qwen3",
            layer=_WEIGHTS | _HEAD_NORMS,
            optional_biases=_ATTENTION_BIASES,
            windows=True,
        ),
        Architecture(
            name="qwen2vl",
            model_type="qwen2",
            layer=_WEIGHTS,
            optional_biases={"": ("attn_q", "attn_k", "attn_v")},
            of_images=("rope.dimension_sections",),
        ),
        Architecture(
            name="qwen3vl",
            model_type="qwen3",
            layer=_WEIGHTS | _HEAD_NORMS,
            optional_biases=_ATTENTION_BIASES,
            of_images=("rope.dimension_sections", "n_deepstack_layers"),
        ),
        Architecture(
            name="qwen3moe",
            model_type="qwen3_moe",
            layer=_NORMS | _ATTENTION | _HEAD_NORMS | {"ffn_gate_inp": "mlp.gate"},
            experts={
                "ffn_gate_exps": "mlp.experts.gate_up_proj",
                "ffn_up_exps": "mlp.experts.gate_up_proj",
                "ffn_down_exps": "mlp.experts.down_proj",
            },
            optional_biases=_ATTENTION_BIASES,
            constants={"norm_topk_prob": True},
        ),
        Architecture(
            name="smollm3",
            model_type="smollm3",
            layer=_WEIGHTS,
            permuted=_QUERIES_KEYS,
            optional_biases=_ALL_BIASES,
            constants={"no_rope_layer_interval": 4},
        ),
        Architecture(
            name="gemma2",
            model_type="gemma2",
            layer=_FOUR_NORMS | _ATTENTION | _FEED_FORWARD,
            norms_with_one=True,
            head_lengths=("query_pre_attn_scalar",),
            windows=True,
            pattern=2,
            numbers={
                "attn_logit_softcapping": ("attn_logit_softcapping", 50.0),
                "final_logit_softcapping": ("final_logit_softcapping", 30.0),
            },
            shared_lengths=46,
        ),
        Architecture(
            name="gemma3",
            model_type="gemma3_text",
            layer=_FOUR_NORMS | _ATTENTION | _HEAD_NORMS | _FEED_FORWARD,
            norms_with_one=True,
            head_lengths=("query_pre_attn_scalar",),
            windows=True,
            pattern=6,
            local_rope=True,
            numbers={"final_logit_softcapping": ("final_logit_softcapping", 0.0)},
            shared_lengths=62,
        ),
        Architecture(
            name="phi3",
            model_type="phi3",
            layer={
                **_NORMS,
                "attn_qkv": "self_attn.qkv_proj",
                "attn_output": "self_attn.o_proj",
                "ffn_up": "mlp.gate_up_proj",
                "ffn_down": "mlp.down_proj",
            },
            windows=True,
            pattern=0,
            partial_rope=True,
        ),
        Architecture(
            name="granite",
            model_type="granite",
            layer=_WEIGHTS,
            permuted=_QUERIES_KEYS,
            optional_biases=_ALL_BIASES,
            numbers={
                "attention_multiplier": ("attention.scale", None),
                "embedding_multiplier": ("embedding_scale", 1.0),
                "residual_multiplier": ("residual_scale", 1.0),
                "logits_scaling": ("logit_scale", None),
            },
            only={"rope.scaling.finetuned": True},
        ),
        Architecture(
            name="mistral3",
            model_type="ministral3",
            layer=_WEIGHTS,
            permuted=_QUERIES_KEYS,
            growing_queries=True,
        ),
        Architecture(
            name="lfm2",
            model_type="lfm2",
            layer={
                "attn_norm": "operator_norm",
                "ffn_norm": "ffn_norm",
                "attn_q": "self_attn.q_proj",
                "attn_k": "self_attn.k_proj",
                "attn_v": "self_attn.v_proj",
                "attn_output": "self_attn.out_proj",
                "attn_q_norm": "self_attn.q_layernorm",
                "attn_k_norm": "self_attn.k_layernorm",
                "shortconv.conv": "conv.conv",
                "shortconv.in_proj": "conv.in_proj",
                "shortconv.out_proj": "conv.out_proj",
                "ffn_gate": "feed_forward.w1",
                "ffn_down": "feed_forward.w2",
                "ffn_up": "feed_forward.w3",
            },
            whole=_LFM2_ENDS,
            convolutions=True,
            epsilon="norm_eps",
            constants={"block_auto_adjust_ff_dim": False},
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
