"""Where the weights of an ONNX file lie outside of it, read without the onnx package.

A board has no onnx, and TensorRT from 10.13 on takes weights where they are mapped. Of the file's
protobuf only what leads to its initializers is read: ModelProto.graph (7), GraphProto.initializer
(5), TensorProto.name (8) and external_data (13), whose entries are key (1) and value (2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

GRAPH, INITIALIZER, NAME, EXTERNAL_DATA, KEY, VALUE = 7, 5, 8, 13, 1, 2
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_LONGEST_VARINT = 10


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
    for graph in _parts(memoryview(model), GRAPH):
        for tensor in _parts(graph, INITIALIZER):
            entries = {
                _text(entry, KEY): _text(entry, VALUE) for entry in _parts(tensor, EXTERNAL_DATA)
            }
            if entries:
                yield Outside(
                    _text(tensor, NAME),
                    entries["location"],
                    int(entries.get("offset", 0)),
                    int(entries["length"]),
                )


def _text(message: memoryview, field: int) -> str:
    (part,) = _parts(message, field)
    return bytes(part).decode()


def _parts(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """What a message has under one field that is text, bytes or a message."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, place = _varint(message, place)
            continue
        if kind in (_EIGHT, _FOUR):
            place += 8 if kind == _EIGHT else 4
            continue
        if kind != _BYTES:
            raise ValueError(f"no ONNX model: a field is of kind {kind}")
        size, place = _varint(message, place)
        if place + size > len(message):
            raise ValueError("no ONNX model: it is cut short")
        if field == wanted:
            yield message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, least first, and the place behind it."""
    value = 0
    for shift in range(_LONGEST_VARINT):
        if place >= len(message):
            break
        byte = message[place]
        value |= (byte & 0x7F) << (7 * shift)
        place += 1
        if byte < 0x80:
            return value, place
    raise ValueError("no ONNX model: a number has no end")
