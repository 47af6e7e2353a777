"""Checkpoints of real shapes with random weights, written a tensor at a time.

No stage's time depends on what the weights say. The text models have the shapes of Qwen2.5-0.5B and
Qwen2.5-3B. The smaller one stands also behind CLIP-L/336 in LLaVA's way, and behind a tower of 12
blocks with three levels of DeepStack in Qwen3-VL's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.arrays import Array

SHAPES = ("text", "text-3b", "llava", "qwen3_vl")
SIDES = {"llava": 336, "qwen3_vl": 768}
"""By shape that sees: pixels on a side of an image that becomes 576 visual tokens."""
SPECIALS = (
    *("<pad>", "<end>", "<image>"),
    *("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"),
)
IMAGE, QWEN_IMAGE, QWEN_VIDEO, QWEN_START, QWEN_END = range(2, 7)
"""Ids of `SPECIALS`."""
VOCABULARY = 151_936
_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 32_768,
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
    "head_dim": 128,
}
_CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
_QWEN_TOWER: dict[str, Any] = {
    "depth": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_heads": 12,
    "deepstack_visual_indexes": [2, 5, 8],
}
_MEAN = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_PIXELS: dict[str, dict[str, Any]] = {
    "llava": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 336},
        "crop_size": {"height": 336, "width": 336},
        "do_convert_rgb": True,
        **_MEAN,
    },
    "qwen3_vl": {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        **_MEAN,
    },
}
_BLOCK = (1 << 22) + 7
"""Random numbers that are drawn; they repeat, shifted against the rows of matrices."""


def checkpoint(folder: Path, shape: str) -> Path:
    """The checkpoint of a shape in `folder`, written if it is not there."""
    target = folder / f"{shape}-checkpoint"
    if not (target / "tokenizer.json").is_file():
        write(shape, target)
    return target


def write(shape: str, folder: Path) -> int:
    """The checkpoint in float16; returns the bytes of its weights."""
    import torch
    import transformers

    config = _config(shape)
    sees = shape in _PIXELS
    auto: Any = (
        transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    )
    with torch.device("meta"):
        model = auto.from_config(config, dtype=torch.float16)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    folder.mkdir(parents=True, exist_ok=True)
    config.dtype = torch.float16
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    size = _write_weights(folder / "model.safetensors", shapes)
    if sees:
        text = json.dumps(_PIXELS[shape])
        (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
    _write_tokenizer(folder)
    return size


def _config(shape: str) -> Any:
    import transformers

    if shape == "llava":
        return transformers.LlavaConfig(
            vision_config=transformers.CLIPVisionConfig(**_CLIP),
            text_config=transformers.Qwen2Config(**_TEXT, rope_theta=1e6),
            image_token_id=IMAGE,
            image_seq_length=576,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
        )
    if shape == "qwen3_vl":
        rotary = {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": [12, 10, 10],
            "mrope_interleaved": True,
        }
        return transformers.Qwen3VLConfig(
            vision_config={**_QWEN_TOWER, "out_hidden_size": _TEXT["hidden_size"]},
            text_config={**_TEXT, "rope_parameters": rotary},
            image_token_id=QWEN_IMAGE,
            video_token_id=QWEN_VIDEO,
            vision_start_token_id=QWEN_START,
            vision_end_token_id=QWEN_END,
            tie_word_embeddings=True,
        )
    return transformers.Qwen2Config(**(_LARGE if shape == "text-3b" else _TEXT), rope_theta=1e6)


def _write_weights(file: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
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


def _write_tokenizer(folder: Path) -> None:
    """Byte-level BPE with one merge; the rest of the vocabulary is never met in text."""
    import tokenizers
    import transformers
    from tokenizers import decoders, models, pre_tokenizers

    words = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
    words += [f"<{number}>" for number in range(VOCABULARY - len(words))]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.BPE(ids, [("t", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>"
    )
    fast.save_pretrained(folder)
