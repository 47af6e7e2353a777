"""Small checkpoints with random weights, in Hugging Face's layout, one call each.

Loaded by a fixture, so that a test session without torch can still be collected. Weights are
drawn wider than usual: attention then prefers some tokens, and a wrong mask shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers

VOCABULARY = 256
SPECIALS = ("<pad>", "<end>", "<user>", "<assistant>", "<image>")
END, USER, ASSISTANT, IMAGE = range(1, 5)
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<user>' if message['role'] == 'user' else '<assistant>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}"
    "{{ '<end>' if message['role'] == 'assistant' else '' }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)

APART = TEMPLATE.replace("'<image>'", "'[<image>]'")
"""Something stands between images, as Qwen-VL has it."""


def by_character() -> tokenizers.Tokenizer:
    """Every token is one character, so that any answer is encoded as it was generated."""
    letters = [*map(chr, range(0x20, 0x7F)), *map(chr, range(0x100, 0x300))]
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *letters][:VOCABULARY])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def by_byte() -> tokenizers.Tokenizer:
    """Every token is one byte, so that a character takes several."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *letters])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def _llama(layers: int) -> transformers.LlamaConfig:
    return transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=0,
        initializer_range=0.2,
    )


def llama(folder: Path) -> None:
    """Grouped heads, three layers, a head of its own."""
    torch.manual_seed(11)
    _save(transformers.LlamaForCausalLM(_llama(3)), by_character(), folder)


def qwen2(folder: Path) -> None:
    """Biases on queries, keys and values; the head is the embeddings."""
    torch.manual_seed(12)
    config = transformers.Qwen2Config(
        vocab_size=len(SPECIALS) + 256,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=0,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    model = transformers.Qwen2ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    _save(model, by_byte(), folder)


def llava(folder: Path) -> None:
    """A CLIP tower of 16 tokens at its own 56 pixels, before four decoder layers."""
    torch.manual_seed(13)
    tower = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        projection_dim=32,
        initializer_factor=3.0,
    )
    config = transformers.LlavaConfig(
        vision_config=tower,
        text_config=_llama(4),
        image_token_id=IMAGE,
        image_seq_length=16,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    model = transformers.LlavaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "projector" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    _save(model, by_character(), folder)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 56},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 56, "width": 56},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.45],
        "image_std": [0.25, 0.3, 0.2],
    }
    text = {"image_processor": processor, "processor_class": "LlavaProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(text), encoding="utf-8")


def text_family(folder: Path, model_type: str, fields: dict[str, Any]) -> None:
    """A model of `text_families.py`; neither its biases are zeros nor its norms ones."""
    torch.manual_seed(17)
    config = transformers.AutoConfig.for_model(model_type, **fields)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
        elif "norm" in parameter_name:
            # Around what its class begins with: ones, or zeros that ones are added to.
            parameter.data += torch.empty_like(parameter).uniform_(-0.3, 0.3)
    if config.tie_word_embeddings:
        model.get_input_embeddings().weight.data[: len(SPECIALS)] = 0  # no likely answer either
    _save(model, by_character(), folder)


def qwen2_5_vl(folder: Path) -> None:
    """Windows of 2 x 2 cells of 12 pixels; heads of 18; a processor as it was published."""
    torch.manual_seed(14)
    config = transformers.Qwen2_5_VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 40,
            "intermediate_size": 52,
            "num_heads": 2,
            "patch_size": 6,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 24,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 72,
            "tokens_per_second": 2,
            "initializer_range": 0.2,
        },
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 72,
            "intermediate_size": 90,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 4],
            },
            "eos_token_id": END,
            "bos_token_id": None,
            "pad_token_id": 0,
            "initializer_range": 0.2,
        },
        image_token_id=IMAGE,
        video_token_id=0,
        vision_start_token_id=0,
        vision_end_token_id=0,
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    _save(model, by_character(), folder, APART)
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 4 * 144,
        "max_pixels": 400 * 144,
        "patch_size": 6,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")


def qwen3_vl(folder: Path) -> None:
    """Three levels of DeepStack, 7 x 7 learned positions, cells of 16 pixels; the head is tied."""
    torch.manual_seed(15)
    config = transformers.Qwen3VLConfig(
        vision_config={
            "depth": 4,
            "hidden_size": 48,
            "intermediate_size": 56,
            "num_heads": 3,
            "patch_size": 8,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": 60,
            "num_position_embeddings": 49,
            "deepstack_visual_indexes": [0, 1, 3],
            "initializer_range": 0.2,
        },
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 60,
            "intermediate_size": 90,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 18,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 3, 2],
                "mrope_interleaved": True,
            },
            "eos_token_id": END,
            "bos_token_id": None,
            "pad_token_id": 0,
            "initializer_range": 0.2,
        },
        image_token_id=IMAGE,
        video_token_id=0,
        vision_start_token_id=0,
        vision_end_token_id=0,
        tie_word_embeddings=True,
    )
    model = transformers.Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        # No control token is ever likely: text says everything about the tokens.
        model.get_input_embeddings().weight[: len(SPECIALS)] *= 0.01
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    _save(model, by_character(), folder, APART)
    processor = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        "size": {"shortest_edge": 4 * 256, "longest_edge": 400 * 256},
        "patch_size": 8,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")


def _save(
    model: Any, tokenizer: tokenizers.Tokenizer, folder: Path, template: str = TEMPLATE
) -> None:
    head = model.get_output_embeddings()
    if head.weight is not model.get_input_embeddings().weight:
        # No control token is ever likely: text says everything about the tokens.
        with torch.no_grad():
            head.weight[: len(SPECIALS)] = 0
    model.save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>"
    )
    fast.chat_template = template
    fast.save_pretrained(folder)


CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "llama": llama,
    "qwen2": qwen2,
    "llava": llava,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}
