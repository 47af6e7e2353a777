"""What data sheet and configuration promise of Qwen2.5-VL-3B on an Orin Nano 8GB; nothing is run.

    python benchmarks/orin_nano.py

Sizes are the checkpoint's own (`Qwen/Qwen2.5-VL-3B-Instruct`, config.json), int4 in blocks of
32, tower and head in float16. Memory is planned by `tightrope.runtime.memory`, times by
`tightrope.jetson.roofline`, the tower's by the same share of the tensor cores.
"""

from __future__ import annotations

from tightrope.bundle import FileEntry, Manifest, Source
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.onnx import OWN_OPSET
from tightrope.interface.tensors import Dims
from tightrope.jetson.device import find_device
from tightrope.jetson.roofline import (
    COMPUTE_EFFICIENCY,
    INT4_BYTES,
    DecoderSizes,
    predict_from_device,
)
from tightrope.runtime.memory import PROCESS_BYTES, planned_bytes, resident_memory

HIDDEN, LAYERS, INTERMEDIATE, VOCABULARY = 2048, 36, 11008, 151936
KV_HEADS, HEAD_DIM = 2, 128
TOWER_WEIGHTS = 32 * (1280 * 3840 + 1280 * 1280 + 3 * 1280 * 3420) + 5120 * 5120 + 5120 * 2048
TOWER_PIXELS, MERGED = 14 * 14, 4
LAYER = 2 * HIDDEN * (HIDDEN + KV_HEADS * HEAD_DIM) + 3 * HIDDEN * INTERMEDIATE
HEAD = HIDDEN * VOCABULARY
SLOTS, QUESTION, ANSWER = 2048, 40, 16
SIDES, KEPT = (448, 644), (1.0, 0.25)
MODES = ("15W", "25W", "MAXN_SUPER")


def decoder() -> DecoderSizes:
    """That of a bundle with these weights."""
    return DecoderSizes(
        weights=LAYERS * LAYER + HEAD,
        weight_bytes=INT4_BYTES * LAYERS * LAYER + 2 * HEAD,
        slot_bytes=2 * LAYERS * KV_HEADS * HEAD_DIM * 2,
    )


def manifest() -> Manifest:
    """The one that `tightrope export --precision int4` would write, but for its files."""
    stored = int(decoder().weight_bytes) + 2 * TOWER_WEIGHTS
    return Manifest(
        format=2,
        family="qwen2_5_vl",
        dims=Dims(
            num_hidden_layers=LAYERS,
            num_attention_heads=16,
            num_key_value_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            hidden_size=HIDDEN,
            vocab_size=VOCABULARY,
        ),
        positions="mrope",
        opset_version=OWN_OPSET,
        precision="int4",
        activations="float16",
        embeddings="float16",
        slots=SLOTS,
        prefill_chunk=512,
        minimum_onnxruntime="1.23",
        source=Source(name="Qwen/Qwen2.5-VL-3B-Instruct", revision="main", licence="see its card"),
        vision=VisionInfo(
            kind="qwen",
            image_token_id=151655,
            image_token="<|image_pad|>",
            resolutions=SIDES,
            signals=(),
            sizes={},
        ),
        files={"standard.weights.data": FileEntry(bytes=stored, sha256="0" * 64)},
    )


def main() -> None:
    sizes, planned = decoder(), manifest()
    print("memory of the standard graphs, in MB")
    for name, size in resident_memory(planned).items():
        if not name.endswith("host graphs"):
            print(f"  {name:40s} {size / 1e6:8.0f}")
    total = planned_bytes(planned, "tensorrt") + PROCESS_BYTES
    print(f"  {'all, with the process':40s} {total / 1e6:8.0f}")
    print(f"milliseconds: {QUESTION} tokens of text, one image, {ANSWER} tokens of answer")
    for mode in MODES:
        device = find_device("Orin Nano 8GB", mode)
        per_ms = COMPUTE_EFFICIENCY * device.fp16_flop_per_s / 1e3
        for side in SIDES:
            patches = side * side // TOWER_PIXELS
            tower_ms = 2 * TOWER_WEIGHTS * patches / per_ms
            for share in KEPT:
                tokens = QUESTION + int(share * patches / MERGED)
                told = predict_from_device(device, sizes, prompt_tokens=tokens, context=tokens)
                first = tower_ms + told.prefill_ms
                print(
                    f"  {mode:10s} {side} px, {share:4.0%} of {patches // MERGED} visual tokens: "
                    f"tower {tower_ms:5.0f}, prefill {told.prefill_ms:5.0f}, "
                    f"a token {told.tpot_ms:5.1f}, all {first + (ANSWER - 1) * told.tpot_ms:6.0f}"
                )


if __name__ == "__main__":
    main()
