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

from tightrope.bundle import Manifest
from tightrope.interface.onnx import ITEM_BYTES
from tightrope.jetson.device import Device

BANDWIDTH_EFFICIENCY = 0.75
"""Of the memory's bandwidth, while weights and slots are read."""
COMPUTE_EFFICIENCY = 0.37
"""Of the tensor cores' dense float16 rate, while a prompt is read."""
CALL_MS = 3.2
"""Of each step and each prefill, whatever it reads."""
INT4_BYTES = 0.5625
"""Of a weight, with its share of a block's scale."""


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
    """Of a bundle; a vision tower's weights, which lie in the same file, are counted as well."""
    stored = sum(
        entry.bytes for name, entry in manifest.files.items() if name.endswith("weights.data")
    )
    kinds = {"int4": INT4_BYTES, "fp16": ITEM_BYTES["float16"], "fp32": ITEM_BYTES["float32"]}
    dims = manifest.dims
    values = 2 * dims.num_hidden_layers * dims.num_key_value_heads * dims.head_dim
    return DecoderSizes(
        weights=int(stored / kinds[manifest.precision]),
        weight_bytes=float(stored),
        slot_bytes=values * ITEM_BYTES[manifest.activations],
    )
