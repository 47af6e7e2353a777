"""Writing new keys and values to the slots that a graph chose: one launch for all layers.

No op of a graph, since a graph only reads slots: the runtime launches it behind one.
"""

from __future__ import annotations

from typing import NamedTuple


class LayerRow(NamedTuple):
    """A layer's row of the table int64 [L,7] that the kernel reads: addresses, then lengths."""

    slot_key: int
    """[N,Hkv,capacity,D]"""
    slot_value: int
    key: int
    """[N,Hkv,length,D]"""
    value: int
    target: int
    """int32 [N,Hkv,length], -1 for a token that is not kept"""
    capacity: int
    length: int


__all__ = ["LayerRow"]
