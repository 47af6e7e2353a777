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


def _save(model: Any, tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    head = model.get_output_embeddings()
    if head.weight is not model.get_input_embeddings().weight:
        # No control token is ever likely: text says everything about the tokens.
        with torch.no_grad():
            head.weight[: len(SPECIALS)] = 0
    model.save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)


CHECKPOINTS: dict[str, Callable[[Path], None]] = {"llama": llama, "qwen2": qwen2, "llava": llava}
