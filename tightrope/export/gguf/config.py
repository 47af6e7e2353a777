"""The metadata of a GGUF file as the fields of a Hugging Face config."""

from __future__ import annotations

from typing import Any

from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import Account, Harmless
from tightrope.export.gguf.architectures import Architecture
from tightrope.export.gguf.file import GgufFile
from tightrope.export.gguf.keys import WAY_OUT, Keys
from tightrope.export.gguf.rotary import rope_fields

HARMLESS = (
    Harmless(r"general\..*", "general.* describes the file"),
    Harmless(r"split\..*", "split.* is what the parts are joined by"),
    Harmless(r"quantize\..*|imatrix\..*", "quantize.* says how the file was quantised"),
    Harmless(r"training\..*", "training.* says how the model was trained"),
    Harmless(r".*\.tensor_data_layout", "tensor_data_layout names the layout all files have"),
    Harmless(r".*\.rope\.scaling\.finetuned", "rope.scaling.finetuned is a remark"),
    Harmless(r"tokenizer\.huggingface\.json", "the same tokenizer again, which llama.cpp skips"),
    Harmless(
        r"tokenizer\.ggml\.(token_type_count|mask_token_id|seperator_token_id|cls_token_id)",
        "tokens of BERT alone",
    ),
    Harmless(
        r"tokenizer\.ggml\.(fim_(pre|suf|mid)|prefix|suffix|middle)_token_id",
        "tokens for filling gaps, which no prompt here is made of",
    ),
    Harmless(r"tokenizer\.ggml\.remove_extra_whitespaces", "of the tokenizer model t5 alone"),
)
"""Keys of metadata that change nothing of the model or its tokens."""


def fields_of(file: GgufFile, architecture: Architecture, account: Account) -> dict[str, Any]:
    """Arguments of the Hugging Face config; takes their keys from `account`.

    Raises UnsupportedModel for what is missing, contradictory, or cannot be stated there.
    """
    keys = Keys(file, account)
    experts = _experts(keys, architecture)
    heads = keys.whole("attention.head_count")
    hidden = keys.whole("embedding_length")
    head_dim = keys.whole("attention.key_length", hidden // heads)
    context = keys.whole("context_length")
    if (value := keys.whole("attention.value_length", head_dim)) != head_dim:
        raise keys.wrong("attention.value_length", value, f"{head_dim}, as long as keys")
    if (causal := keys.take("attention.causal", True)) is not True:
        raise keys.wrong("attention.causal", causal, "true: it is no model that generates")
    for name in architecture.of_images:
        keys.take(name)
    for name, accepted in architecture.only.items():
        if (found := keys.take(name, accepted)) != accepted:
            raise keys.wrong(name, found, f"{accepted}")
    fields: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": keys.whole("feed_forward_length"),
        "num_hidden_layers": keys.whole("block_count"),
        "num_attention_heads": heads,
        "head_dim": head_dim,
        architecture.epsilon: keys.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": context,
        "vocab_size": _vocabulary(keys, file),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        # Ends and paddings are the tokenizer's; the classes' defaults name nothing.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    fields |= _layers(keys, architecture, fields)
    fields |= rope_fields(keys, file, architecture, head_dim, context)
    fields |= _windows(keys, architecture, fields)
    fields |= experts
    fields |= architecture.constants
    fields |= {
        field: keys.number(name, default) or None
        for field, (name, default) in architecture.numbers.items()
    }
    shares = fields["num_hidden_layers"] == architecture.shared_lengths
    length = hidden // heads if shares else head_dim
    fields |= dict.fromkeys(architecture.head_lengths, length)
    for field, names in architecture.optional_biases.items():
        if field:
            fields[field] = any(f"blk.0.{name}.bias" in file.tensors for name in names)
    return fields


def _experts(keys: Keys, architecture: Architecture) -> dict[str, Any]:
    if architecture.experts:
        return {
            "num_experts": keys.whole("expert_count"),
            "num_experts_per_tok": keys.whole("expert_used_count"),
            "moe_intermediate_size": keys.whole("expert_feed_forward_length"),
        }
    experts, used = keys.take("expert_count", 0), keys.take("expert_used_count", 0)
    if experts or used:
        raise keys.wrong("expert_count", experts, "0: no mixtures of experts here")
    return {}


def _layers(keys: Keys, architecture: Architecture, fields: dict[str, Any]) -> dict[str, Any]:
    """Heads of keys and values; a layer that has none is a short convolution."""
    name, layers = "attention.head_count_kv", fields["num_hidden_layers"]
    if not architecture.convolutions:
        return {"num_key_value_heads": keys.whole(name, fields["num_attention_heads"])}
    counts, inputs = keys.take(name), keys.whole("shortconv.l_cache")
    whole = isinstance(counts, list) and all(isinstance(count, int) for count in counts)
    if not whole or len(counts) != layers or min(counts) < 0 or len({0, *counts}) != 2:
        raise keys.wrong(name, counts, f"for each of the {layers} layers 0, or the same count")
    if inputs < 2:
        raise keys.wrong("shortconv.l_cache", inputs, "2 or more")
    return {
        "num_key_value_heads": max(counts),
        "layer_types": ["full_attention" if count else "conv" for count in counts],
        "conv_L_cache": inputs,
    }


def _vocabulary(keys: Keys, file: GgufFile) -> int:
    """Rows of the embeddings, which may be more than there are tokens."""
    if "token_embd.weight" not in file.tensors:
        raise UnsupportedModel(f"{file.path} has no tensor token_embd.weight; {WAY_OUT}")
    rows = int(file.tensors["token_embd.weight"].shape[-1])
    if (told := keys.whole("vocab_size", rows)) != rows:
        raise keys.wrong("vocab_size", told, f"{rows}, the rows of token_embd.weight")
    return rows


def _windows(keys: Keys, architecture: Architecture, fields: dict[str, Any]) -> dict[str, Any]:
    """Which layers see a window; one as long as the context is none.

    Where layers with a window have rotary positions of their own, they are told apart all the same.
    """
    window = keys.take("attention.sliding_window")
    pattern = keys.take("attention.sliding_window_pattern", architecture.pattern)
    alternate = bool(architecture.pattern)
    if not window or (window >= fields["max_position_embeddings"] and not alternate):
        if alternate:
            raise keys.wrong("attention.sliding_window", window, "a whole number, 1 or more")
        return {}
    if not architecture.windows:
        raise keys.wrong("attention.sliding_window", window, "no window: this model has none")
    layers = fields["num_hidden_layers"]
    if isinstance(pattern, int) and not isinstance(pattern, bool) and pattern >= 0:
        # Every layer but each PATTERN-th sees the window only.
        pattern = [not pattern or (layer + 1) % pattern != 0 for layer in range(layers)]
    if not isinstance(pattern, list) or len(pattern) != layers:
        raise keys.wrong(
            "attention.sliding_window_pattern", pattern, f"which of the {layers} layers see it"
        )
    if architecture.pattern == 0 and not all(pattern):
        raise keys.wrong("attention.sliding_window_pattern", pattern, "all layers")
    kinds = ["sliding_attention" if slides else "full_attention" for slides in pattern]
    return {"use_sliding_window": True, "sliding_window": int(window), "layer_types": kinds}
