"""Families that see, exported with int4, two of them with half of their bits as well."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

import transformers  # noqa: E402

import tightrope as tr  # noqa: E402

Find = Callable[[str], Path]
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma3-vl": {},
    "qwen3_vl": {"resolutions": (96,)},
    "qwen2_5_vl": {"resolutions": (72,)},
    "llava-next": {"resolutions": (56,)},
    "smolvlm": {"resolutions": (56,)},
    "internvl": {"resolutions": (49,)},
}
"""One of each kind: an average and images that see themselves whole, DeepStack, windows, tiles in
three layouts. LLaVA-OneVision is exported as LLaVA-NeXT is, LLaVA-1.5 in float16 by other tests."""
HALVES = ("gemma3-vl", "qwen3_vl")
"""Those that are exported with half of their bits as well: int4 leaves their towers in float16."""
WIDE = 96
"""Inputs of a matrix that are whole blocks of 32."""
QUESTION, STEPS = "what is on the left?", 4


def with_whole_blocks(source: Path, folder: Path) -> Path:
    """The checkpoint with other weights, of which some matrices can be int4."""
    shutil.copytree(source, folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.get_text_config().intermediate_size = WIDE
    torch.manual_seed(41)
    model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vision" in name or "visual" in name or "projector" in name or "connector" in name:
                parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def pictures() -> list[PIL.Image.Image]:
    rng = np.random.default_rng(5)
    sizes = ((60, 80, 3), (28, 28, 3))
    return [PIL.Image.fromarray(rng.integers(0, 256, size, np.uint8)) for size in sizes]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_that_sees_is_exported_in_every_precision(
    name: str, checkpoint: Find, exported: Callable[..., Any], tmp_path: Path
) -> None:
    source = with_whole_blocks(checkpoint(name), tmp_path / "checkpoint")
    for precision in ("fp16", "int4") if name in HALVES else ("int4",):
        folder = tmp_path / f"{precision}.bundle"
        options = {"precision": precision, "selectors": ("divprune",), **FAMILIES[name]}
        summary = exported(source, folder, **options)
        parity, weights = summary.parity, summary.weights
        assert parity.equal_tokens == parity.tokens and parity.logits <= parity.allowed
        in_codes = any(how.endswith("with zero points") for how in weights["mlp"].stored)
        assert in_codes == (precision == "int4")
        for part in ("tower", "projector", "embeddings"):
            assert set(weights[part].stored) <= {"float16", "float32"}
        model = tr.load(folder, "onnxruntime", 1, live=False)
        point = tr.OperatingPoint(selector="divprune", keep="50%", policy="h2o", kv_budget=60)
        answer = model.generate(
            QUESTION, pictures(), max_tokens=STEPS, ignore_eos=True, point=point
        )
        assert len(answer.token_ids) == STEPS and answer.usage.occupied_slots <= 60
        assert 0 < answer.usage.visual_tokens_kept < answer.usage.visual_tokens
