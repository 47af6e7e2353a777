"""A checkpoint as a folder in Hugging Face's layout."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import GenerationConfig, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from models.training.architecture import PATCH, SIDE, config, create
from models.training.vocabulary import BOS, EOS, IDS, IMAGE, PAD, UNKNOWN, tokenizer

CHAT_TEMPLATE = """\
{%- for m in messages -%}
{%- if m['role'] == 'system' -%}SYSTEM: {{ m['content'] }} {% endif -%}
{%- if m['role'] == 'user' -%}USER: {% if m['content'] is string %}{{ m['content'] }}\
{% else %}{% for part in m['content'] %}{% if part['type'] == 'image' %}<image> \
{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %} {% endif -%}
{%- if m['role'] == 'assistant' -%}\
ASSISTANT: {{ m['content'].split('</think>')[-1].strip() }} </s> {% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}ASSISTANT:\
{%- if enable_thinking is defined and not enable_thinking %} <think> </think>{% endif -%}
{%- endif -%}
"""
"""Earlier thoughts are left out; `enable_thinking=false` opens the answer with an empty one."""

PROCESSOR = {
    "image_processor": {
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": SIDE},
    },
    "image_token": IMAGE,
    "num_additional_image_tokens": 1,
    "patch_size": PATCH,
    "processor_class": "LlavaProcessor",
    "vision_feature_select_strategy": "default",
}


def release(weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Write a state dict of LlavaForConditionalGeneration in float16, with all that goes along."""
    model = LlavaForConditionalGeneration(config())
    model.load_state_dict(weights)
    ends = GenerationConfig(
        bos_token_id=IDS[BOS], eos_token_id=IDS[EOS], pad_token_id=IDS[PAD], do_sample=False
    )
    model.generation_config = ends
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    # Written for its owner alone, otherwise.
    (folder / "model.safetensors").chmod(0o644)
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        processor_class="LlavaProcessor",
    )
    words.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")
    (folder / "processor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="of a stage; without: before all training")
    given = parser.parse_args()
    if given.checkpoint:
        weights = torch.load(given.checkpoint, map_location="cpu", weights_only=True)["model"]
    else:
        weights = create(0).state_dict()
    release(weights, given.folder)


if __name__ == "__main__":
    main()
