"""Small GGUF files of Hugging Face models, laid out as llama.cpp's converter lays them out.

Written with the package gguf, and from its own table of names: nothing of the reader is used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

CORPUS = (
    "The quick brown fox jumps over the lazy dog, doesn't it? We'll see: I'd say they've gone. "
    "In 2024 or 1999, 3.14 and 12345 of 67 kg cost $1,000. def main(args): return args[0] + 1\n\n"
    "Ärger über Öl; ça va, señor? Привет, мир! 你好，世界。今日は。안녕하세요 สวัสดี नमस्ते مرحبا "
    "\tif (x >= 10) { y = x ** 2; }\r\n   three   spaces 😀👍🏽 ﬁ ½ ² Ⅳ Éclair "
    "naïveté HELLOWorld helloWORLD "
) * 20
CONTROL, USER_DEFINED, BYTE, NORMAL = 3, 4, 6, 1
Kind = gguf.GGMLQuantizationType
F32 = Kind.F32


@dataclass(frozen=True)
class Coded:
    """A matrix that is quantised already: uint8 [rows, bytes]."""

    codes: np.ndarray
    kind: Any


def byte_level(specials: Iterable[str] = (), size: int = 500, split: str | None = None) -> Any:
    """A trained byte-level BPE of the tokenizers library; specials come first."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    steps: list[Any] = [] if split is None else [pre_tokenizers.Split(Regex(split), "isolated")]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(specials),
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    return tokenizer


def metadata_of(
    tokenizer: Any, user_defined: Iterable[str] = (), normal: Iterable[str] = ()
) -> dict[str, Any]:
    """Keys of a byte-level tokenizer; added tokens are control unless named otherwise."""
    state = json.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    added = {entry["content"] for entry in state["added_tokens"]} - set(normal)
    kinds = [
        USER_DEFINED if token in set(user_defined) else CONTROL if token in added else NORMAL
        for token in tokens
    ]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in state["model"]["merges"]],
    }


def digest(ids: Iterable[int]) -> str:
    """Token ids in few letters."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:10]


def pieces(size: int) -> list[str]:
    """Pieces of a trained vocabulary in the order in which they are merged, characters last."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False)
    tokenizer.train_from_iterator([CORPUS.replace("\n", " ")], trainer)
    vocabulary = tokenizer.get_vocab()
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    return [
        *(piece for piece in ordered if len(piece) > 1),
        *("▁▁", "▁▁▁▁"),
        *(piece for piece in ordered if len(piece) == 1),
    ]


def sentencepiece(pieces: Iterable[str], user_defined: Iterable[str] = ()) -> dict[str, Any]:
    """Keys of a vocabulary of the model `llama`; earlier pieces are merged first."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, CONTROL, CONTROL, *[BYTE] * 256]
    for token in user_defined:
        tokens.append(token)
        kinds.append(USER_DEFINED)
    scores = [0.0] * len(tokens)
    for piece in dict.fromkeys(pieces):
        if piece not in tokens:
            tokens.append(piece)
            kinds.append(NORMAL)
            scores.append(-float(len(tokens)))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": scores,
    }


MODEL_TYPES = {
    "gemma3": "gemma3_text",
    "qwen3moe": "qwen3_moe",
    "mistral3": "ministral3",
    "qwen2vl": "qwen2_5_vl",
    "qwen3vl": "qwen3_vl",
}
"""transformers' name of an architecture, where it is another."""
TOWERS: dict[str, dict[str, Any]] = {
    "qwen2vl": {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64},
    "qwen3vl": {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
        "intermediate_size": 40,
        "deepstack_visual_indexes": [0, 1],
    },
}
"""Of models that see; their files hold the language model alone."""
AS_LLAMA = ("llama", "granite", "smollm3", "mistral3")
"""Whose converters derive from Llama's: queries and keys are stored in pairs."""
ONE_MORE = ("gemma2", "gemma3")
"""Whose norms are stored with the 1 that is added to them."""


def config_of(architecture: str, **changes: Any) -> Any:
    """A small config with odd changes."""
    values: dict[str, Any] = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "pad_token_id": None,
    }
    model_type = MODEL_TYPES.get(architecture, architecture)
    if architecture in TOWERS:
        parts = {"text_config": values | changes, "vision_config": TOWERS[architecture]}
        return transformers.AutoConfig.for_model(model_type, **parts)
    return transformers.AutoConfig.for_model(model_type, **(values | changes))


def model_of(config: Any, seed: int = 0) -> Any:
    """A random model whose biases and norms are no zeros and ones either."""
    torch.manual_seed(seed)
    sees = hasattr(config, "vision_config")
    kind = "AutoModelForImageTextToText" if sees else "AutoModelForCausalLM"
    model = getattr(transformers, kind).from_config(config, dtype=torch.float32)
    model.set_experts_implementation("eager")
    model = model.eval().requires_grad_(False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.5)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model


def keys_of(model: Any, architecture: str) -> dict[str, Any]:
    """Metadata that the converter writes for a model, of one that sees for its text part."""
    config = model.config.get_text_config()
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    head_dim = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    keys: dict[str, Any] = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(
            config.norm_eps if architecture == "lfm2" else config.rms_norm_eps
        ),
        "rope.freq_base": float(rope["rope_theta"]),
    }
    own_length = head_dim != config.hidden_size // config.num_attention_heads
    if own_length and architecture not in ("phi3", "granite"):  # whose converters know none
        keys |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    if architecture in AS_LLAMA:
        keys |= {"rope.dimension_count": head_dim, "vocab_size": config.vocab_size}
    if rope["rope_type"] in ("linear", "yarn"):
        keys["rope.scaling.type"] = rope["rope_type"]
        keys["rope.scaling.factor"] = float(rope["factor"])
    if rope["rope_type"] == "yarn":
        keys["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        for name in ("beta_fast", "beta_slow"):
            if name in rope:
                keys[f"rope.scaling.yarn_{name}"] = float(rope[name])
        if "attention_factor" in rope:
            keys["rope.scaling.yarn_attn_factor"] = float(rope["attention_factor"])
    keys |= OWN_KEYS.get(architecture, lambda _: {})(config)
    if architecture in ("qwen2vl", "qwen3vl"):
        keys["rope.dimension_sections"] = [*rope["mrope_section"], 0]
    if architecture == "qwen3vl":
        keys["n_deepstack_layers"] = len(model.config.vision_config.deepstack_visual_indexes)
    return {f"{architecture}.{name}": value for name, value in keys.items()}


def gemma2_keys(config: Any) -> dict[str, Any]:
    return {
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attn_logit_softcapping": float(config.attn_logit_softcapping),
        "final_logit_softcapping": float(config.final_logit_softcapping),
        "attention.sliding_window": config.sliding_window,
    }


def gemma3_keys(config: Any) -> dict[str, Any]:
    keys = {
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.sliding_window": config.sliding_window,
        "rope.freq_base_swa": float(config.rope_parameters["sliding_attention"]["rope_theta"]),
    }
    if config.final_logit_softcapping:
        keys["final_logit_softcapping"] = float(config.final_logit_softcapping)
    return keys


def phi3_keys(config: Any) -> dict[str, Any]:
    rope, heads = config.rope_parameters, config.num_attention_heads
    original = config.original_max_position_embeddings
    keys = {
        "rope.scaling.original_context_length": original,
        "rope.dimension_count": int(rope["partial_rotary_factor"] * config.hidden_size) // heads,
        "attention.sliding_window": config.sliding_window or 0,
    }
    if rope["rope_type"] == "longrope":
        scale = config.max_position_embeddings / original
        keys["rope.scaling.attn_factor"] = math.sqrt(1 + math.log(scale) / math.log(original))
    return keys


def granite_keys(config: Any) -> dict[str, Any]:
    return {
        "attention.scale": float(config.attention_multiplier),
        "embedding_scale": float(config.embedding_multiplier),
        "residual_scale": float(config.residual_multiplier),
        "logit_scale": float(config.logits_scaling),
    }


def qwen3moe_keys(config: Any) -> dict[str, Any]:
    return {
        "expert_count": config.num_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": config.moe_intermediate_size,
    }


def mistral3_keys(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    return {
        "rope.scaling.yarn_log_multiplier": float(rope["mscale_all_dim"]),
        "attention.temperature_scale": float(rope["llama_4_scaling_beta"]),
    }


def lfm2_keys(config: Any) -> dict[str, Any]:
    wide = int(config.block_ffn_dim_multiplier * int(2 * config.intermediate_size / 3))
    heads = config.num_key_value_heads
    return {
        "attention.head_count_kv": [0 if kind == "conv" else heads for kind in config.layer_types],
        "feed_forward_length": -(-wide // config.block_multiple_of) * config.block_multiple_of,
        "shortconv.l_cache": config.conv_L_cache,
        "vocab_size": config.vocab_size,
    }


OWN_KEYS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "gemma2": gemma2_keys,
    "gemma3": gemma3_keys,
    "phi3": phi3_keys,
    "granite": granite_keys,
    "qwen3moe": qwen3moe_keys,
    "mistral3": mistral3_keys,
    "lfm2": lfm2_keys,
}
"""What a converter writes beside what all of them do."""


def tensors_of(model: Any, architecture: str) -> dict[str, np.ndarray]:
    """The file's tensors, float32: q and k with rows in pairs where they are rotated so there."""
    config = model.config.get_text_config()
    names = gguf.get_tensor_name_map(
        gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers
    )
    tensors = {}
    for name, parameter in model.named_parameters():
        if ".visual." in name:
            continue
        name = name.replace("language_model.", "")
        value = parameter.detach().float().numpy()
        if name.endswith("conv.conv.weight"):
            value = value.squeeze(1)
        if architecture in AS_LLAMA and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            value = value[in_pairs(value.shape[0], heads)]
        if architecture in ONE_MORE and name.endswith("norm.weight"):
            value = value + 1
        parts = {name: value}
        if "experts.gate_up_proj" in name:
            halves = zip(("gate", "up"), np.split(value, 2, 1), strict=True)
            parts = {name.replace("gate_up", part): half for part, half in halves}
        for part, half in parts.items():
            tensors[names.get_name(part, (".weight", ".bias"))] = half
    tensors |= rotary_tensors(model)
    renamed = {}
    for name, value in tensors.items():
        suffix = "" if name.endswith((".weight", ".bias")) else ".weight"
        renamed[name + suffix] = value
    return renamed


def in_pairs(rows: int, heads: int) -> list[int]:
    """The order in which a head's halves lie side by side."""
    half = rows // heads // 2
    return [
        head * 2 * half + side * half + pair
        for head in range(heads)
        for pair in range(half)
        for side in range(2)
    ]


def rotary_tensors(model: Any) -> dict[str, np.ndarray]:
    config = model.config.get_text_config()
    rope = config.rope_parameters
    if rope.get("rope_type") == "llama3":
        plain = 1 / rope["rope_theta"] ** (
            np.arange(0, config.head_dim, 2, dtype=np.float32) / config.head_dim
        )
        scaled = model.model.rotary_emb.inv_freq.numpy()
        return {"rope_freqs.weight": (plain / scaled).astype(np.float32)}
    if rope.get("rope_type") == "longrope":
        return {
            f"rope_factors_{length}.weight": np.array(rope[f"{length}_factor"], np.float32)
            for length in ("long", "short")
        }
    return {}


def write(
    file: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Any],
    architecture: str = "llama",
    kind: Any = F32,
) -> Path:
    """A GGUF file; matrices are stored in `kind`, vectors in float32."""
    writer = gguf.GGUFWriter(file, architecture)
    for key, value in metadata.items():
        _add(writer, key, value)
    for name, value in tensors.items():
        if isinstance(value, Coded):
            writer.add_tensor(name, value.codes, raw_dtype=value.kind)
        elif kind == F32 or value.ndim < 2:
            writer.add_tensor(name, np.ascontiguousarray(value, np.float32))
        elif kind == Kind.F16:
            writer.add_tensor(name, value.astype(np.float16))
        else:
            writer.add_tensor(name, gguf.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def file_of(
    file: Path,
    model: Any,
    metadata: Mapping[str, Any],
    architecture: str = "llama",
    kind: Any = F32,
) -> Path:
    """The file of a model, with a tokenizer's metadata."""
    keys = keys_of(model, architecture) | dict(metadata)
    return write(file, keys, tensors_of(model, architecture), architecture, kind)


def place(model: Any, name: str, value: np.ndarray) -> None:
    """Put a tensor of a llama file back into its model; undoes `tensors_of`, row by row."""
    config = model.config
    for own, parameter in model.named_parameters():
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
        if names.get_name(own, (".weight", ".bias")) != name:
            continue
        if "q_proj" in own or "k_proj" in own:
            heads = config.num_attention_heads if "q_proj" in own else config.num_key_value_heads
            half = value.shape[0] // heads // 2
            rows = np.arange(value.shape[0]).reshape(heads, half, 2)
            value = value[np.concatenate([rows[..., 0], rows[..., 1]], 1).reshape(-1)]
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
