"""Writing new keys and values to the slots that a graph chose: one launch for all layers.

To slots in int8 they are rounded on the way.

No op of a graph, since a graph only reads slots: the runtime launches it behind one. Where it
launches no kernels, a small graph does the same for one layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class LayerRow(NamedTuple):
    """A layer's row of the table int64 [L,7] that `commit` reads: addresses, then lengths."""

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


class Int8Row(NamedTuple):
    """The same of the table int64 [L,9] that `commit_int8` reads."""

    slot_key: int
    """int8 [N,Hkv,capacity,D]"""
    slot_value: int
    slot_key_scale: int
    """float32 [N,Hkv,capacity,1]"""
    slot_value_scale: int
    key: int
    """float16 [N,Hkv,length,D]"""
    value: int
    target: int
    """As of a `LayerRow`."""
    capacity: int
    length: int


SLOTS, NEW, SOURCE, PLACE, NEXT = "slots", "new", "source", "place", "next"
"""Of the graph: slots [R,D], new rows [T,D], which of them [M] go where [M,1]; slots afterwards."""
FLOATS = ("float16", "float32")


def graph_file(dtype: str) -> Path:
    """The graph for slots of one of FLOATS."""
    return Path(__file__).parent / f"{dtype}.onnx"


__all__ = [
    "FLOATS",
    "NEW",
    "NEXT",
    "PLACE",
    "SLOTS",
    "SOURCE",
    "Int8Row",
    "LayerRow",
    "graph_file",
]
