"""What a decoder may take on a board that nobody has measured it on, from the board's data sheet.

A roofline: a step reads all weights and the occupied slots, a prefill multiplies; each reaches a
fixed share of what the memory and the tensor cores could do, and every call costs something of its
own. The constants are those of language models of 1.5 to 14 billion float16 weights on an AGX Orin
64GB (EdgeReasoning, arXiv 2511.01866, vLLM), whose time per token they meet within 5 % and whose
time to the first token within 45 %. Other engines may do better or worse: for choosing what to try,
never for a deadline. That needs what `tightrope.latency` predicts from measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tightrope.bundle import Manifest
from tightrope.interface.onnx import ITEM_BYTES
from tightrope.jetson.device import Device

BANDWIDTH_EFFICIENCY = 0.75
"""Of the memory's bandwidth, while weights and slots are read."""
COMPUTE_EFFICIENCY = 0.37
"""Of the tensor cores' dense float16 rate, while a prompt is read."""
CALL_MS = 3.2
"""Of each step and each prefill, whatever it reads."""
INT4_BYTES, INT8_BYTES = 0.5625, 1.0625
"""Of a weight, with its share of a block's scale."""
CODES = {"int4": INT4_BYTES, "int8": INT8_BYTES}
TEXT_TOKENS = 28
"""Beside an image, in what is predicted."""
OF_TOWER, OF_HOST = ("tower", "projector"), "embeddings"
"""Parts of bundle.json's `weights` that no decoder reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSizes:
    """What a decoder reads and multiplies."""

    weights: int
    """That a step reads; the embedding table is not among them."""
    weight_bytes: float
    """Of all of them."""
    slot_bytes: int
    """Keys and values of one slot in all layers and heads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePrediction:
    """A guess without a spread: it can be looked at, and no deadline can be kept by it."""

    device: Device
    prefill_ms: float
    tpot_ms: float
    basis: str = "the board's data sheet; measured nowhere"


def predict_from_device(
    device: Device, sizes: DecoderSizes, *, prompt_tokens: int, context: int
) -> DevicePrediction:
    """Time to read `prompt_tokens`, and time per token with `context` occupied slots."""
    bytes_per_ms = BANDWIDTH_EFFICIENCY * device.memory_bytes_per_s / 1e3
    flop_per_ms = COMPUTE_EFFICIENCY * device.fp16_flop_per_s / 1e3
    reading_ms = sizes.weight_bytes / bytes_per_ms
    multiplying_ms = 2 * sizes.weights * prompt_tokens / flop_per_ms
    return DevicePrediction(
        device=device,
        prefill_ms=CALL_MS + max(reading_ms, multiplying_ms),
        tpot_ms=CALL_MS + reading_ms + context * sizes.slot_bytes / bytes_per_ms,
    )


def decoder_sizes(manifest: Manifest) -> DecoderSizes:
    """Of a bundle; where it does not say what its parts take, a tower's weights are counted too."""
    dims = manifest.dims
    heads = dims.num_hidden_layers * dims.num_key_value_heads
    weights, stored = weights_of(manifest, of_tower=False)
    return DecoderSizes(
        weights=weights,
        weight_bytes=float(stored),
        slot_bytes=heads * manifest.slot_bytes,
    )


def weights_of(manifest: Manifest, *, of_tower: bool) -> tuple[int, int]:
    """How many weights the tower's or the decoder's standard graphs read, and their bytes."""
    kinds = {"int4": INT4_BYTES, "fp16": ITEM_BYTES["float16"], "fp32": ITEM_BYTES["float32"]}
    if not manifest.weights:
        files = manifest.files.items()
        stored = sum(entry.bytes for name, entry in files if name.endswith("weights.data"))
        return (0, 0) if of_tower else (int(stored / kinds[manifest.precision]), stored)
    count = total = 0
    for part, group in manifest.weights.items():
        if part == OF_HOST or (part in OF_TOWER) != of_tower:
            continue
        kind = next((CODES[word[:4]] for word in group.stored if word[:4] in CODES), None)
        plain = ITEM_BYTES[manifest.embeddings]
        weights = int(group.bytes / (kind or plain))
        count += weights
        # Codes of eight bits are float16 for TensorRT.
        total += weights * ITEM_BYTES["float16"] if kind == INT8_BYTES else group.bytes
    return count, total


def tower_patches(manifest: Manifest, resolution: int) -> int:
    """Patches that the tower reads of an image that fills `resolution`."""
    tower, vision = manifest.tower, manifest.vision
    assert tower is not None and vision is not None, "a model without a tower sees nothing"
    sizes, tokens = vision.sizes, tower.most_tokens(resolution)
    if "merge_size" in sizes:
        return tokens * sizes["merge_size"] ** 2
    if "tokens_per_side" in sizes:
        return ceil(tokens / sizes["tokens_per_side"] ** 2) * sizes["positions"]
    return tokens + 1  # CLS


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPrediction:
    """One image and one question, or a text alone; a guess without a spread."""

    resolution: int | None
    visual_tokens: int
    prompt_tokens: int
    """Visual tokens among them."""
    vision_ms: float
    """Attention between patches is not counted."""
    prefill_ms: float
    tpot_ms: float

    @property
    def ttft_ms(self) -> float:
        """Of the graphs; what the host does before is not counted."""
        return self.vision_ms + self.prefill_ms


def predict_request(device: Device, manifest: Manifest) -> RequestPrediction:
    """An image at the bundle's first resolution with all its tokens, and TEXT_TOKENS beside it."""
    vision, tower = manifest.vision, manifest.tower
    resolution, visual, vision_ms = None, 0, 0.0
    if vision is not None and tower is not None:
        resolution = vision.resolutions[0]
        visual = tower.most_tokens(resolution)
        weights, stored = weights_of(manifest, of_tower=True)
        sizes = DecoderSizes(weights=weights, weight_bytes=float(stored), slot_bytes=0)
        patches = tower_patches(manifest, resolution)
        told = predict_from_device(device, sizes, prompt_tokens=patches, context=0)
        vision_ms = told.prefill_ms
    tokens = visual + TEXT_TOKENS
    told = predict_from_device(
        device, decoder_sizes(manifest), prompt_tokens=tokens, context=tokens
    )
    return RequestPrediction(
        resolution=resolution,
        visual_tokens=visual,
        prompt_tokens=tokens,
        vision_ms=vision_ms,
        prefill_ms=told.prefill_ms,
        tpot_ms=told.tpot_ms,
    )
