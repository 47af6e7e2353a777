"""What a bundle will take up in memory, estimated from its manifest alone."""

from __future__ import annotations

from tightrope.bundle import Manifest
from tightrope.interface.onnx import ITEM_BYTES
from tightrope.runtime.kept import IMAGE_BYTES, PREFIX_BYTES

PROCESS_BYTES = 512 << 20
"""Python, its packages and what a GPU's driver keeps beside all bundles: a round figure."""
_HOST, _STANDARD = "host graphs", "standard graphs"


def resident_memory(manifest: Manifest) -> dict[str, int]:
    """Estimated bytes in memory by what takes them.

    Host graphs compute in float32, so 16-bit weights are held twice as large there, and what slots
    in int8 keep four times; int4 weights are packed twice, for prompts and for single tokens.
    Embeddings are memory-mapped: the part in use, at most the file.
    """
    dims = manifest.dims
    weights = sum(
        entry.bytes for name, entry in manifest.files.items() if name.endswith("weights.data")
    )
    held = sum(manifest.slots_by_layer) * dims.num_key_value_heads
    host_weights = weights if manifest.precision == "fp32" else 2 * weights
    return {
        f"weights, {_HOST}": host_weights,
        f"weights, {_STANDARD}": weights,
        f"slots at capacity, {_HOST}": 2 * held * dims.head_dim * ITEM_BYTES["float32"],
        f"slots at capacity, {_STANDARD}": held * manifest.slot_bytes,
        "embeddings, at most": dims.vocab_size * dims.hidden_size * ITEM_BYTES[manifest.embeddings],
        "kept of earlier requests, at most": PREFIX_BYTES + (IMAGE_BYTES if manifest.vision else 0),
    }


def planned_bytes(manifest: Manifest, backend: str) -> int:
    """What the bundle takes at most on `backend`, the process itself aside."""
    others = _HOST if backend == "tensorrt" else _STANDARD
    rows = resident_memory(manifest).items()
    return sum(size for name, size in rows if not name.endswith(others))
