"""What Qwen3-VL-2B would take on Jetsons by their data sheets, beside what NVIDIA published.

python benchmarks/board_prediction.py

Nothing is measured: bytes and operations are counted from the model's published dimensions, as
`tightrope inspect BUNDLE --board NAME` counts those of a bundle, and divided by what a board's
memory and tensor cores can do at the shares that language models reached on an AGX Orin. Beside
them stands NVIDIA's table for its own runtime, TensorRT-Edge-LLM 0.10 on JetPack 7.2: batch 1, int4
AWQ, COCO images of about 265 visual tokens in 292 to 296, power mode not stated
(docs/source/user_guide/performance/performance-benchmarks.md of that repository).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from measuring import record

from tightrope.bundle import FORMAT, FileEntry, Manifest, Source, WeightGroup
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.onnx import OWN_OPSET
from tightrope.interface.tensors import Dims
from tightrope.jetson.device import find_device
from tightrope.jetson.facts import facts_of
from tightrope.jetson.memory import plan_memory
from tightrope.jetson.roofline import (
    INT4_BYTES,
    decoder_sizes,
    predict_from_device,
    predict_request,
)

SIDE = 512
"""256 visual tokens of 32 x 32 pixels, the nearest square to the published 265."""
LONG = 2048
DIMS = Dims(
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    hidden_size=2048,
    vocab_size=151_936,
    rope_axes=3,
    deepstack=3,
)
INTERMEDIATE = 6144
TOWER_LAYERS, TOWER_WIDTH, TOWER_INTERMEDIATE = 24, 1024, 4096
MERGED = 4 * TOWER_WIDTH
"""Patches of a cell, side by side."""


@dataclass(frozen=True)
class Published:
    """A row of NVIDIA's table; milliseconds, tokens a second, megabytes."""

    prefill_ms: float
    vision_ms: float
    tokens_per_s: float
    memory_mb: float
    prefill_2048_ms: float
    tokens_per_s_2048: float


PUBLISHED = {
    ("Orin Nano 8GB", "MAXN_SUPER"): Published(167.2, 141.3, 36.1, 4486, 1017, 32.3),
    ("Orin NX 16GB", "MAXN_SUPER"): Published(93.5, 77.1, 58.5, 4533, 760, 52.6),
    ("AGX Orin 64GB", "MAXN"): Published(45.7, 36.2, 98.9, 4554, 298, 88.7),
}
"""By board and the mode that is taken for it, its fastest."""


def manifest() -> Manifest:
    """A bundle of these dimensions as `--precision int4` writes it, without its files."""
    layers, hidden = DIMS.num_hidden_layers, DIMS.hidden_size
    heads = DIMS.num_attention_heads + DIMS.num_key_value_heads
    attention = layers * 2 * hidden * DIMS.head_dim * heads
    mlp = layers * 3 * hidden * INTERMEDIATE
    block = 4 * TOWER_WIDTH**2 + 2 * TOWER_WIDTH * TOWER_INTERMEDIATE
    merger = MERGED * MERGED + MERGED * hidden
    table = hidden * DIMS.vocab_size
    groups = {
        "attention": _int4(attention),
        "mlp": _int4(mlp),
        "head": _int4(table),
        "tower": WeightGroup(stored={"float16": 1}, bytes=2 * TOWER_LAYERS * block),
        "projector": WeightGroup(stored={"float16": 1}, bytes=2 * merger * (1 + DIMS.deepstack)),
        "embeddings": WeightGroup(stored={"float16": 1}, bytes=2 * table),
    }
    vision = VisionInfo(
        kind="qwen_vl",
        image_token_id=151_655,
        image_token="<|image_pad|>",
        resolutions=(SIDE,),
        signals=(),
        sizes={
            "patch_size": 16,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "least_pixels": 65_536,
            "window": 0,
            "table": 48,
            "deepstack": DIMS.deepstack,
        },
    )
    return Manifest(
        format=FORMAT,
        family="qwen3_vl",
        dims=DIMS,
        positions="mrope",
        opset_version=OWN_OPSET,
        precision="int4",
        activations="float16",
        embeddings="float16",
        slots=4096,
        prefill_chunk=512,
        minimum_onnxruntime="1.23",
        source=Source(name="Qwen3-VL-2B's dimensions", revision="none", licence="none"),
        vision=vision,
        weights=groups,
        files={"embeddings.data": FileEntry(bytes=2 * table, sha256="")},
    )


def _int4(weights: int) -> WeightGroup:
    return WeightGroup(stored={"int4 by 32": 1}, bytes=int(weights * INT4_BYTES))


def compared() -> list[dict[str, Any]]:
    """A row for each board: predicted, published, and the one as a share of the other."""
    rows, described = [], manifest()
    for (name, mode), published in PUBLISHED.items():
        device = find_device(name, mode)
        request = predict_request(device, described)
        long = predict_from_device(
            device, decoder_sizes(described), prompt_tokens=LONG, context=LONG
        )
        plan = plan_memory(replace(described, slots=LONG), facts_of(name, mode))
        predicted = Published(
            prefill_ms=request.prefill_ms,
            vision_ms=request.vision_ms,
            tokens_per_s=1e3 / request.tpot_ms,
            memory_mb=plan.running_bytes / 1e6,
            prefill_2048_ms=long.prefill_ms,
            tokens_per_s_2048=1e3 / long.tpot_ms,
        )
        mine, theirs = asdict(predicted), asdict(published)
        rows.append(
            {
                "board": name,
                "power_mode": mode,
                "ttft_ms": request.ttft_ms,
                "predicted": {key: round(value, 1) for key, value in mine.items()},
                "published": theirs,
                "predicted_by_published": {
                    key: round(value / theirs[key], 2) for key, value in mine.items()
                },
                "memory": [asdict(line) for line in plan.running],
            }
        )
    return rows


def main() -> None:
    record("board_prediction", {"proof_level": 0, "rows": compared()})


if __name__ == "__main__":
    main()
