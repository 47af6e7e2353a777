"""What the first token of a Qwen3-VL of half a billion weights waits for, stage by stage.

python benchmarks/qwen_vl.py FOLDER

The weights are random, which no stage's time depends on: a language model of 24 layers behind a
tower of 12 with three levels of DeepStack. One image of 768 x 768 pixels makes 576 visual tokens;
it is asked about with all of them, with half and a quarter of them, and at half its pixels. FOLDER
keeps the checkpoint and its bundle for the next run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import random_checkpoints
from measuring import interleaved, record, spread

import tightrope as tr

SIDE, HALF = 768, 544
"""Sides of the pixel budgets: 24 x 24 tokens of 32 pixels, and 17 x 17."""
QUESTION = "what is left of the red cup?"
STAGES = ("image_ms", "vision_ms", "select_ms", "prefill_ms", "ttft_ms")
POINTS = {
    "all 576 tokens": tr.OperatingPoint(resolution=SIDE),
    "50 %": tr.OperatingPoint(resolution=SIDE, selector="divprune", keep="50%"),
    "25 %": tr.OperatingPoint(resolution=SIDE, selector="divprune", keep="25%"),
    "half the pixels": tr.OperatingPoint(resolution=HALF),
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
    bundle = folder / f"{precision}.bundle"
    if not bundle.is_dir():
        config = tr.ExportConfig(
            precision=precision, resolutions=(SIDE, HALF), selectors=("divprune",)
        )
        tr.export(random_checkpoints.checkpoint(folder, "qwen3_vl"), bundle, config)
    return bundle


if __name__ == "__main__":
    main()
