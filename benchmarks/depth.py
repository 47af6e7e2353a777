"""Which of its layers the reference model needs to see the picture with, in PyTorch.

python benchmarks/depth.py models/reference

From a layer on, no token of the text sees the picture. Questions are those of the split dev,
teacher-forced.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from measuring import record
from transformers import LlavaForConditionalGeneration

# The training program is no part of the package: it is imported from the root of the repository.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from models.training.architecture import LAYERS
from models.training.evaluate import measure, subjects, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--pixels", type=int, default=336)
    given = parser.parse_args()
    model = LlavaForConditionalGeneration.from_pretrained(given.checkpoint, dtype=torch.float32)
    model.eval()
    found: dict[str, Any] = {}
    for layer in range(0, LAYERS + 1, 2):
        asked = subjects("scenes", None, given.scenes)
        right = measure(model, asked, given.pixels, f"hide:{layer}", False, True)
        found[f"hidden from layer {layer}"] = summary(right)
        print(layer, found[f"hidden from layer {layer}"], flush=True)
    record("depth", {"layers": LAYERS, "pixels": given.pixels, "rows": found})


if __name__ == "__main__":
    main()
