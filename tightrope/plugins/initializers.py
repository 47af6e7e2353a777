"""Where the weights of an ONNX file lie outside of it, read without the onnx package.

A board has no onnx, and TensorRT from 10.13 on takes weights where they are mapped. Of the file's
protobuf only what leads to its initializers is read: ModelProto.graph (7), GraphProto.initializer
(5), TensorProto.name (8) and external_data (13), whose entries are key (1) and value (2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tightrope.plugins.protobuf import parts, text

GRAPH, INITIALIZER, NAME, EXTERNAL_DATA, KEY, VALUE = 7, 5, 8, 13, 1, 2


@dataclass(frozen=True, slots=True)
class Outside:
    """An initializer whose bytes are in another file."""

    name: str
    location: str
    """Relative to the ONNX file's folder."""
    offset: int
    length: int


def outside(model: bytes) -> Iterator[Outside]:
    """The initializers of a serialised model that lie outside; ValueError for other bytes."""
    for graph in parts(memoryview(model), GRAPH):
        for tensor in parts(graph, INITIALIZER):
            entries = {
                text(entry, KEY): text(entry, VALUE) for entry in parts(tensor, EXTERNAL_DATA)
            }
            if entries:
                yield Outside(
                    text(tensor, NAME),
                    entries["location"],
                    int(entries.get("offset", 0)),
                    int(entries["length"]),
                )
