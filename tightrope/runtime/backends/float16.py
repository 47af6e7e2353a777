"""Bundles that a GPU would answer wrongly, because float16 does not hold what they compute."""

from __future__ import annotations

from tightrope.bundle import Manifest
from tightrope.errors import UnsupportedModel


def refuse_overflow(manifest: Manifest) -> None:
    """Raises UnsupportedModel where export saw a standard graph leave float16."""
    parity = manifest.parity
    if parity is None or parity.overflow is None:
        return
    raise UnsupportedModel(
        f"{parity.overflow}, and float16 ends at 65,504: on a GPU answers would be wrong; export "
        "the checkpoint with --precision fp32, or choose --backend onnxruntime, which computes in "
        "float32"
    )
