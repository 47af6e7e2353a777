"""Checkpoints of random weights in the shapes that are compared, each written once.

No stage's time depends on what the weights say. The text model has the shape of Qwen2.5-0.5B. The
same stands behind CLIP-L/336 in LLaVA's way, and behind a tower of 12 blocks with three levels of
DeepStack in Qwen3-VL's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VOCABULARY = 151_936
SPECIALS = (
    *("<pad>", "<end>", "<image>"),
    *("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"),
)
IMAGE, QWEN_IMAGE, QWEN_VIDEO, QWEN_START, QWEN_END = range(2, 7)
"""Ids of `SPECIALS`."""
SIDES = {"llava": 336, "qwen3_vl": 768}
"""By shape that sees: pixels on a side of an image that becomes 576 visual tokens."""
TEXT: dict[str, Any] = {
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
CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
QWEN_TOWER: dict[str, Any] = {
    "depth": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_heads": 12,
    "deepstack_visual_indexes": [2, 5, 8],
}
PIXELS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
CLIP_PIXELS = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 336},
    "crop_size": {"height": 336, "width": 336},
    "do_convert_rgb": True,
    **PIXELS,
}
QWEN_PIXELS = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    **PIXELS,
}


def checkpoint(folder: Path, shape: str) -> Path:
    """The checkpoint of a shape in `folder`."""
    target = folder / f"{shape}-checkpoint"
    if not (target / "tokenizer.json").is_file():
        model, pixels = {"text": _text, "llava": _llava, "qwen3_vl": _qwen3_vl}[shape]()
        _save(model, target)
        if pixels:
            text = json.dumps(pixels)
            (target / "preprocessor_config.json").write_text(text, encoding="utf-8")
        _write_tokenizer(target)
    return target


def _save(model: Any, target: Path) -> None:
    import torch

    model.to(torch.float16).save_pretrained(target)


def _text() -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    torch.manual_seed(0)
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**TEXT, rope_theta=1e6)), {}


def _llava() -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**CLIP),
        text_config=transformers.Qwen2Config(**TEXT, rope_theta=1e6),
        image_token_id=IMAGE,
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    return transformers.LlavaForConditionalGeneration(config), CLIP_PIXELS


def _qwen3_vl() -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    torch.manual_seed(0)
    rotary = {
        "rope_type": "default",
        "rope_theta": 5e6,
        "mrope_section": [12, 10, 10],
        "mrope_interleaved": True,
    }
    config = transformers.Qwen3VLConfig(
        vision_config={**QWEN_TOWER, "out_hidden_size": TEXT["hidden_size"]},
        text_config={**TEXT, "rope_parameters": rotary},
        image_token_id=QWEN_IMAGE,
        video_token_id=QWEN_VIDEO,
        vision_start_token_id=QWEN_START,
        vision_end_token_id=QWEN_END,
        tie_word_embeddings=True,
    )
    return transformers.Qwen3VLForConditionalGeneration(config), QWEN_PIXELS


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
