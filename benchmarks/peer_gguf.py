"""A checkpoint of Qwen2's shape as a GGUF file in Q4_0: `python peer_gguf.py FOLDER FILE`.

llama.cpp quantises it itself, which gives the head eight bits where K-quants do not fit its rows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
from safetensors import safe_open

LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    **{
        f"self_attn.{part}_proj.{kind}": f"attn_{part}.{kind}"
        for part in "qkv"
        for kind in ("weight", "bias")
    },
}
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}


def main(folder: Path, target: Path) -> None:
    plain = target.with_suffix(".f16")
    write(folder, plain)
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    failed = llama_cpp.llama_model_quantize(str(plain).encode(), str(target).encode(), options)
    plain.unlink()
    if failed:
        sys.exit(f"llama.cpp could not quantise {plain}")


def write(folder: Path, target: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(target, "qwen2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(1e6)
    add_vocabulary(writer, json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # no mapping
                value = tensors.get_tensor(name)
                kind = np.float16 if value.ndim == 2 else np.float32
                writer.add_tensor(named(name), value.astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: Any, tokenizer: dict[str, Any]) -> None:
    """Without one, llama.cpp's binding reads past the end of a table that is not there."""
    vocabulary, specials = tokenizer["model"]["vocab"], tokenizer["added_tokens"]
    control = {entry["id"] for entry in specials}
    kinds = [
        gguf.TokenType.CONTROL if number in control else gguf.TokenType.NORMAL
        for number in range(len(vocabulary))
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)


def named(name: str) -> str:
    if name in WHOLE:
        return WHOLE[name]
    _, _, number, rest = name.split(".", 3)
    return f"blk.{number}.{LAYER[rest]}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
