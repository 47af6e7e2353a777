"""The fields of a serialised message, read without the protobuf and onnx packages.

A message is a row of fields; each has a number and one of four kinds of value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_FIXED = {_EIGHT: 8, _FOUR: 4}
_LONGEST_VARINT = 10

Value = int | memoryview
"""A number of variable length as it stands; the bytes of everything else."""


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Number and value of each field, in order; ValueError for bytes that are no message."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            number, place = _varint(message, place)
            yield field, number
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"no ONNX model: a field is of kind {kind}")
        if place + size > len(message):
            raise ValueError("no ONNX model: it is cut short")
        yield field, message[place : place + size]
        place += size


def parts(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """What a message has under one field that is text, bytes or a message."""
    for field, value in fields(message):
        if field == wanted and isinstance(value, memoryview):
            yield value


def text(message: memoryview, field: int) -> str:
    """The one text under a field, "" where there is none."""
    return "".join(bytes(part).decode() for part in parts(message, field))


def float_of(value: Value) -> float:
    """A field of four bytes as a number."""
    if not isinstance(value, memoryview) or len(value) != 4:
        raise ValueError("no ONNX model: a float has no four bytes")
    return float(struct.unpack("<f", value)[0])


def signed(value: Value) -> int:
    """A number of variable length, below zero where its highest bit is set."""
    if not isinstance(value, int):
        raise ValueError("no ONNX model: a number is bytes")
    return value - (1 << 64) if value >> 63 else value


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
