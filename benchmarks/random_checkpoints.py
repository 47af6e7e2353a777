"""Checkpoints of real shapes with random weights, written a tensor at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.arrays import Array

SPECIALS = ("<pad>", "<end>", "<image>")
_TEXT = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}
_LARGE = {
    **_TEXT,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
}
_TOWER = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
SHAPES = ("text-0.5b", "vlm-0.5b", "text-3b")
"""Qwen2.5-0.5B's, the same behind CLIP-L/336 as in LLaVA, and Qwen2.5-3B's."""
_BLOCK = (1 << 22) + 7
"""Random numbers that are drawn; they repeat, shifted against the rows of matrices."""


def write(shape: str, folder: Path) -> int:
    """The checkpoint in float16; returns the bytes of its weights."""
    import torch
    import transformers

    config: Any = transformers.Qwen2Config(**(_LARGE if shape == "text-3b" else _TEXT))
    auto = transformers.AutoModelForCausalLM
    if shape.startswith("vlm"):
        config = transformers.LlavaConfig(
            vision_config=transformers.CLIPVisionConfig(**_TOWER),
            text_config=config,
            image_token_id=2,
            image_seq_length=576,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
        )
        auto = transformers.AutoModelForImageTextToText
    with torch.device("meta"):
        model = auto.from_config(config, dtype=torch.float16)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    folder.mkdir(parents=True)
    config.dtype = torch.float16
    config.save_pretrained(folder)
    size = _write_weights(folder / "model.safetensors", shapes)
    _write_texts(folder, sees=shape.startswith("vlm"))
    return size


def _write_weights(file: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    block = np.random.default_rng(0).normal(0, 0.02, _BLOCK).astype(np.float16)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            norm = "norm" in name and name.endswith("weight")
            for part in _parts(np.ones_like(block) if norm else block, math.prod(shape)):
                part.tofile(stream)
    return end


def _parts(block: Array, count: int) -> Iterator[Array]:
    while count > 0:
        yield block[:count]
        count -= len(block)


def _write_texts(folder: Path, sees: bool) -> None:
    import tokenizers
    import transformers
    from tokenizers import decoders, models

    tokens = [*SPECIALS, *map(chr, range(0x20, 0x7F))]
    tokenizer = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIALS))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>"
    )
    fast.save_pretrained(folder)
    if sees:
        processor = {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": 336},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": 336, "width": 336},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
