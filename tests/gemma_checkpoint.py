"""A small Gemma 3 that sees, with random weights, in Hugging Face's layout.

Pictures of 56 pixels become 8 x 8 patches and 16 tokens; windows are shorter than that. Line breaks
join with those beside them, as in Gemma's vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import decoders, models

SIDE, PATCH, TOKENS, WINDOW = 56, 7, 16, 11
SPECIALS = (
    *("<pad>", "<end>", "<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
)
BREAKS = ("\n", "\n\n", "\n\n\n")
BEGIN, STOP, IMAGE = 4, 5, 6
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<start_of_turn>' + message['role'].replace('assistant', 'model') + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}"
    "{{ '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def _tokenizer() -> tokenizers.Tokenizer:
    """Every token is one character, but for line breaks, of which up to three are one."""
    letters = [*BREAKS, *map(chr, range(0x20, 0x7F)), *map(chr, range(0x100, 0x300))]
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *letters][:256])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, [("\n", "\n"), ("\n\n", "\n")]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def gemma3_vl(folder: Path) -> None:
    """Windows in every other layer; the head is the embeddings."""
    torch.manual_seed(31)
    config = transformers.Gemma3Config(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 36,
            "intermediate_size": 52,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        text_config={
            "vocab_size": 256,
            "hidden_size": 45,
            "intermediate_size": 70,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 14,
            "max_position_embeddings": 8192,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "query_pre_attn_scalar": 9,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
            "bos_token_id": None,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "initializer_range": 0.2,
        },
        mm_tokens_per_image=TOKENS,
        boi_token_index=BEGIN,
        eoi_token_index=STOP,
        image_token_index=IMAGE,
        eos_token_id=1,
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Wide enough that each patch counts; norms around what their class begins with.
            if "vision" in name or "projection" in name:
                parameter.normal_(std=0.25)
                if "norm" in name and name.endswith("weight"):
                    parameter.add_(1.0)
            elif "norm" in name:
                parameter += torch.empty_like(parameter).uniform_(-0.3, 0.3)
        # Neither control tokens nor line breaks are ever likely: text says everything about them.
        model.get_input_embeddings().weight[: len(SPECIALS) + len(BREAKS)] *= 0.01
    model.save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(),
        eos_token="<end>",
        pad_token="<pad>",
        extra_special_tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    stored = {
        "image_processor_type": "Gemma3ImageProcessor",
        "processor_class": "Gemma3Processor",
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_pan_and_scan": None,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.4, 0.45],
        "image_std": [0.25, 0.3, 0.2],
        "image_seq_length": TOKENS,
        "pan_and_scan_max_num_crops": None,
        "pan_and_scan_min_crop_size": None,
        "pan_and_scan_min_ratio_to_activate": None,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": SIDE, "width": SIDE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(stored), encoding="utf-8")


CHECKPOINTS: dict[str, Callable[[Path], None]] = {"gemma3-vl": gemma3_vl}
