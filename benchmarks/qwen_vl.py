"""What the first token of a Qwen3-VL of half a billion weights waits for, stage by stage.

python benchmarks/qwen_vl.py FOLDER

The weights are random, which no stage's time depends on: a language model of 24 layers behind a
tower of 12 with three levels of DeepStack. One image of 768 x 768 pixels makes 576 visual tokens;
it is asked about with all of them, with half and a quarter of them, and at half its pixels. FOLDER
keeps the checkpoint and its bundle for the next run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from measuring import interleaved, record, spread

import tightrope as tr

SIDE, HALF = 768, 544
"""Sides of the pixel budgets: 24 x 24 tokens of 32 pixels, and 17 x 17."""
VOCABULARY, IMAGE = 32_768, 2
SPECIALS = ("<pad>", "<end>", "<image>")
QUESTION = "what is left of the red cup?"
STAGES = ("image_ms", "vision_ms", "select_ms", "prefill_ms", "ttft_ms")
POINTS = {
    "all 576 tokens": tr.OperatingPoint(resolution=SIDE),
    "50 %": tr.OperatingPoint(resolution=SIDE, selector="divprune", keep="50%"),
    "25 %": tr.OperatingPoint(resolution=SIDE, selector="divprune", keep="25%"),
    "half the pixels": tr.OperatingPoint(resolution=HALF),
}
PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--precision", default="int4")
    arguments = parser.parse_args()
    model = tr.load(_bundle(arguments.folder, arguments.precision))
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    answers: dict[str, list[Any]] = {name: [] for name in POINTS}

    def ask(name: str) -> None:
        model.forget_images()
        answer = model.generate(QUESTION, [picture], max_tokens=1, point=POINTS[name])
        answers[name].append(answer)

    interleaved({name: lambda name=name: ask(name) for name in POINTS}, arguments.repetitions)
    rows = {}
    for name, several in answers.items():
        timings = [answer.timings for answer in several[1:]]
        rows[name] = {
            "visual_tokens_kept": several[-1].usage.visual_tokens_kept,
            "prompt_tokens": several[-1].usage.prompt_tokens,
            **{stage: spread([getattr(time, stage) for time in timings]) for stage in STAGES},
        }
    full = rows["all 576 tokens"]["ttft_ms"]["median"]
    for row in rows.values():
        row["ttft_speedup"] = full / row["ttft_ms"]["median"]
    record("qwen_vl", {"precision": arguments.precision, "rows": rows})


def _bundle(folder: Path, precision: str) -> Path:
    """The exported model, made if it is not there."""
    bundle, checkpoint = folder / f"{precision}.bundle", folder / "checkpoint"
    if not (checkpoint / "preprocessor_config.json").is_file():
        _write_checkpoint(checkpoint)
    if not bundle.is_dir():
        config = tr.ExportConfig(
            precision=precision, resolutions=(SIDE, HALF), selectors=("divprune",)
        )
        tr.export(checkpoint, bundle, config)
    return bundle


def _write_checkpoint(folder: Path) -> None:
    import tokenizers
    import torch
    import transformers
    from tokenizers import decoders, models

    torch.manual_seed(0)
    config = transformers.Qwen3VLConfig(
        vision_config={
            "depth": 12,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_heads": 12,
            "out_hidden_size": 896,
            "deepstack_visual_indexes": [2, 5, 8],
        },
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [12, 10, 10],
                "mrope_interleaved": True,
            },
            "bos_token_id": None,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
        image_token_id=IMAGE,
        video_token_id=0,
        vision_start_token_id=0,
        vision_end_token_id=0,
        tie_word_embeddings=True,
    )
    transformers.Qwen3VLForConditionalGeneration(config).to(torch.float16).save_pretrained(folder)
    letters = (chr(0x100 + code) for code in range(VOCABULARY))
    tokens = [*SPECIALS, *map(chr, range(0x20, 0x7F)), *letters][:VOCABULARY]
    tokenizer = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIALS))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>"
    )
    fast.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR), encoding="utf-8")


if __name__ == "__main__":
    main()
