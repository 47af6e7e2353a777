"""Small checkpoints whose towers look at tiles, with random weights, in Hugging Face's layout.

Tiles of 28 pixels, sizes of towers odd where they may be. The language models are small too, one
with biases and tied embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models

TILE, PATCH = 28, 7
GRIDS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
PLACES = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
SPECIALS = (
    *("<pad>", "<end>", "<user>", "<assistant>", "<image>", "<img>", "</img>", "<video>"),
    *("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *PLACES),
)
END, IMAGE = 1, 4
VOCABULARY = 256
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<user>' if message['role'] == 'user' else '<assistant>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}"
    "{{ '<end>' if message['role'] == 'assistant' else '' }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
STEPS = {
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.45],
    "image_std": [0.25, 0.3, 0.2],
    "do_convert_rgb": True,
    "do_resize": True,
}


def _tokenizer() -> tokenizers.Tokenizer:
    """Every token is one character, and two line breaks are one."""
    letters = ["\n", "\n\n", *map(chr, range(0x20, 0x7F)), *map(chr, range(0x100, 0x300))]
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *letters][:VOCABULARY])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, [("\n", "\n")]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def _llama() -> transformers.LlamaConfig:
    return transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=72,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=10,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=0,
        initializer_range=0.2,
    )


def _qwen2() -> transformers.Qwen2Config:
    return transformers.Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=40,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=0,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )


def _tower(kind: Any, **more: Any) -> Any:
    return kind(**_sizes() | more)


def llava_siglip(folder: Path) -> None:
    """A SigLIP tower whose patches leave a rim of the picture out, before LLaVA's own projector."""
    torch.manual_seed(21)
    config = transformers.LlavaConfig(
        vision_config=_tower(transformers.SiglipVisionConfig, image_size=30, vision_use_head=True),
        text_config=_qwen2(),
        image_token_id=IMAGE,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    size = {"height": 30, "width": 30}
    _save(
        transformers.LlavaForConditionalGeneration(config),
        folder,
        "SiglipImageProcessor",
        size=size,
    )


def llava_next(folder: Path) -> None:
    """A CLIP tower over five grids, of which the largest has three tiles in a row."""
    torch.manual_seed(22)
    config = transformers.LlavaNextConfig(
        vision_config=_tower(transformers.CLIPVisionConfig, projection_dim=32),
        text_config=_llama(),
        image_token_id=IMAGE,
        image_grid_pinpoints=GRIDS,
        vision_feature_layer=-2,
    )
    _save(
        transformers.LlavaNextForConditionalGeneration(config),
        folder,
        "LlavaNextImageProcessor",
        size={"shortest_edge": TILE},
        crop_size={"height": TILE, "width": TILE},
        do_center_crop=True,
        do_pad=True,
        image_grid_pinpoints=GRIDS,
    )


def llava_onevision(folder: Path) -> None:
    """A SigLIP tower over up to 3 x 3 tiles, whose tokens are scaled down above four tiles."""
    torch.manual_seed(23)
    grids = [[TILE * down, TILE * across] for down in (1, 2, 3) for across in (1, 2, 3)]
    config = transformers.LlavaOnevisionConfig(
        vision_config=_tower(transformers.SiglipVisionConfig, vision_use_head=False),
        text_config=_qwen2(),
        image_token_id=IMAGE,
        video_token_id=7,
        image_grid_pinpoints=grids,
        vision_aspect_ratio="anyres_max_4",
        tie_word_embeddings=True,
    )
    _save(
        transformers.LlavaOnevisionForConditionalGeneration(config),
        folder,
        "LlavaOnevisionImageProcessor",
        size={"height": TILE, "width": TILE},
        do_pad=True,
        image_grid_pinpoints=grids,
    )


def _idefics(folder: Path, config: Any, model: Any, name: str) -> None:
    built = config(
        vision_config=_sizes(),
        text_config=_llama(),
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=0,
    )
    _save(
        model(built),
        folder,
        name,
        size={"longest_edge": 4 * TILE},
        max_image_size={"longest_edge": TILE},
        resample=1,
        do_image_splitting=True,
        do_pad=True,
    )


def smolvlm(folder: Path) -> None:
    """Up to 4 x 4 tiles and the whole, four tokens each."""
    torch.manual_seed(24)
    parts = transformers.SmolVLMConfig, transformers.SmolVLMForConditionalGeneration
    _idefics(folder, *parts, "SmolVLMImageProcessor")


def idefics3(folder: Path) -> None:
    """The same by its older name."""
    torch.manual_seed(25)
    parts = transformers.Idefics3Config, transformers.Idefics3ForConditionalGeneration
    _idefics(folder, *parts, "Idefics3ImageProcessor")


def internvl(folder: Path) -> None:
    """Up to six tiles and the whole, four tokens each; queries and keys are normalised."""
    torch.manual_seed(26)
    vision = _sizes() | {"use_qk_norm": True, "attention_bias": True, "norm_type": "rms_norm"}
    config = transformers.InternVLConfig(
        vision_config=vision | {"model_type": "internvl_vision", "layer_scale_init_value": 0.7},
        text_config=_qwen2(),
        image_token_id=IMAGE,
        image_seq_length=4,
        tie_word_embeddings=True,
    )
    _save(
        transformers.InternVLForConditionalGeneration(config),
        folder,
        "GotOcr2ImageProcessor",
        size={"height": TILE, "width": TILE},
        crop_to_patches=False,
        min_patches=1,
        max_patches=6,
    )


def _sizes() -> dict[str, Any]:
    return {
        "hidden_size": 36,
        "intermediate_size": 52,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": TILE,
        "patch_size": PATCH,
    }


def _save(model: Any, folder: Path, processor: str, **pixels: Any) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Wide enough that each tile, place and row counts.
            if "vision" in name or "projector" in name or "connector" in name:
                parameter.normal_(std=0.25)
                if "norm" in name and name.endswith("weight"):
                    parameter.add_(1.0)
            if "image_newline" in name:
                parameter.normal_(std=1.0)
        head = model.get_output_embeddings()
        if head.weight is not model.get_input_embeddings().weight:
            # No control token is ever likely: text says everything about the tokens.
            head.weight[: len(SPECIALS)] = 0
    model.save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(),
        eos_token="<end>",
        pad_token="<pad>",
        extra_special_tokens={
            "image_token": "<image>",
            "video_token": "<video>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<image>",
        },
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    stored = {"image_processor_type": processor, "resample": 3, **STEPS, **pixels}
    (folder / "preprocessor_config.json").write_text(json.dumps(stored), encoding="utf-8")


CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "llava-siglip": llava_siglip,
    "llava-next": llava_next,
    "llava-onevision": llava_onevision,
    "smolvlm": smolvlm,
    "idefics3": idefics3,
    "internvl": internvl,
}
