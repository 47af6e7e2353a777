"""Bundles whose slots are int8, where graphs of standard operators would have to read them."""

from __future__ import annotations

from tightrope.bundle import Manifest
from tightrope.errors import BackendError
from tightrope.interface.tensors import INT8_SLOTS


def refuse_int8(manifest: Manifest, why: str, way_out: str) -> None:
    """Raises BackendError for such a bundle: they would widen all slots at every token.

    why: graphs with plugins do not run instead. way_out: that lets them, if any does.
    """
    if manifest.kv_cache == INT8_SLOTS:
        raise BackendError(
            f"this bundle keeps slots in int8, which graphs of standard operators do not read, and "
            f"{why}; {way_out}export the checkpoint with --kv-cache float"
        )
