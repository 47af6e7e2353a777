"""A GGUF header checked against the length of its file, before anything is allocated.

Layout (little-endian): magic, uint32 version, uint64 tensors, uint64 keys; each key a string, a
uint32 type and its value; each tensor a string, uint32 dimensions, a uint64 for each, a uint32
type and a uint64 offset from the data, which begins at the next multiple of `general.alignment`.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from tightrope.errors import UnsupportedModel

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SMALLEST_KEY, _SMALLEST_TENSOR = 13, 24
_STRING, _ARRAY = 8, 9
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of each scalar type."""
_UINT32 = 4
_MOST_DIMENSIONS, _LONGEST_NAME = 4, 64
_MOST_ALIGNMENT = 1 << 16
AGAIN = "the file is damaged; get it again"


def check(path: Path) -> None:
    """Raises UnsupportedModel with what is wrong in the header of `path`."""
    size = path.stat().st_size
    if size < 24:
        raise UnsupportedModel(f"{path} is {size} bytes long and no GGUF file; {AGAIN}")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _Walk(path, data).check()


class _Walk:
    """Goes through a header once; `at` never passes the end of the file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._size = len(data)
        self._at = 0
        self._alignment = 32

    def check(self) -> None:
        if self._data[:4] != _MAGIC:
            raise self._wrong("does not begin with the GGUF magic: it is no GGUF file")
        self._at = 4
        version = self._uint32("its version")
        if version not in _VERSIONS and version & 0xFFFF == 0:
            raise UnsupportedModel(
                f"{self._path} is big-endian, which is not read here; take the little-endian file"
            )
        if version not in _VERSIONS:
            raise UnsupportedModel(
                f"{self._path} is a GGUF file of version {version}; read here: "
                f"{', '.join(map(str, _VERSIONS))}; convert the model again"
            )
        tensors, keys = self._uint64("its counts"), self._uint64("its counts")
        room = self._size - self._at
        if keys * _SMALLEST_KEY + tensors * _SMALLEST_TENSOR > room:
            raise self._wrong(f"claims {keys} keys and {tensors} tensors in {room} bytes")
        self._keys(keys)
        self._tensors(tensors)

    def _keys(self, count: int) -> None:
        seen: set[bytes] = set()
        for _ in range(count):
            name = self._string("a key")
            if name in seen:
                raise self._wrong(f"names the key {_shown(name)} twice")
            seen.add(name)
            kind = self._uint32(f"the type of {_shown(name)}")
            if name == b"general.alignment":
                self._read_alignment(kind)
            else:
                self._value(name, kind)

    def _read_alignment(self, kind: int) -> None:
        if kind != _UINT32:
            raise self._wrong("has a general.alignment that is no uint32")
        value = self._uint32("general.alignment")
        if not 0 < value <= _MOST_ALIGNMENT or value & (value - 1):
            raise self._wrong(
                f"has general.alignment {value}; accepted: a power of two up to {_MOST_ALIGNMENT}"
            )
        self._alignment = value

    def _value(self, name: bytes, kind: int) -> None:
        if kind == _STRING:
            self._string(_shown(name))
        elif kind == _ARRAY:
            inner, length = self._uint32(_shown(name)), self._uint64(_shown(name))
            if inner == _STRING:
                if length * 8 > self._size - self._at:
                    raise self._beyond(f"the {length} strings of {_shown(name)}")
                for _ in range(length):
                    self._string(_shown(name))
            elif inner in _SCALARS:
                self._skip(length * _SCALARS[inner], f"the {length} values of {_shown(name)}")
            else:
                raise self._wrong(f"has an array of unknown type {inner} in {_shown(name)}")
        elif kind in _SCALARS:
            self._skip(_SCALARS[kind], _shown(name))
        else:
            raise self._wrong(f"has a value of unknown type {kind} in {_shown(name)}")

    def _tensors(self, count: int) -> None:
        seen: set[bytes] = set()
        spans: list[tuple[int, int, bytes]] = []
        for _ in range(count):
            name = self._string("a tensor's name", _LONGEST_NAME)
            if name in seen:
                raise self._wrong(f"names the tensor {_shown(name)} twice")
            seen.add(name)
            dimensions = self._uint32(_shown(name))
            if not 1 <= dimensions <= _MOST_DIMENSIONS:
                raise self._wrong(
                    f"gives {_shown(name)} {dimensions} dimensions; accepted: 1..{_MOST_DIMENSIONS}"
                )
            shape = [self._uint64(_shown(name)) for _ in range(dimensions)]
            num_bytes = self._tensor_bytes(name, shape, self._uint32(_shown(name)))
            offset = self._uint64(_shown(name))
            if offset % self._alignment:
                raise self._wrong(
                    f"puts {_shown(name)} at {offset}, no multiple of {self._alignment}"
                )
            spans.append((offset, num_bytes, name))
        self._spans(spans)

    def _tensor_bytes(self, name: bytes, shape: list[int], kind: int) -> int:
        try:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise UnsupportedModel(
                f"{self._path} has {_shown(name)} in quantisation {kind}, which the package gguf "
                "does not know; update it, or take a file of another quantisation"
            ) from None
        elements = 1
        for length in shape:  # Python's numbers do not overflow
            elements *= length
        if elements == 0 or shape[0] % block or elements // block * block_bytes > self._size:
            raise self._wrong(
                f"gives {_shown(name)} the shape {shape}, which "
                + (
                    "does not fit its blocks"
                    if elements <= self._size * block
                    else "it cannot hold"
                )
            )
        num_bytes: int = elements // block * block_bytes
        return num_bytes

    def _spans(self, spans: list[tuple[int, int, bytes]]) -> None:
        start = -(-self._at // self._alignment) * self._alignment
        end, before = 0, b""
        for offset, num_bytes, name in sorted(spans):
            if start + offset + num_bytes > self._size:
                raise self._beyond(f"the data of {_shown(name)}")
            if offset < end:
                raise self._wrong(f"lets {_shown(name)} overlap {_shown(before)}")
            end, before = offset + num_bytes, name

    def _uint32(self, what: str) -> int:
        return int(struct.unpack("<I", self._take(4, what))[0])

    def _uint64(self, what: str) -> int:
        return int(struct.unpack("<Q", self._take(8, what))[0])

    def _string(self, what: str, longest: int | None = None) -> bytes:
        length = self._uint64(what)
        if longest is not None and length > longest:
            raise self._wrong(f"has {what} of {length} bytes; accepted: up to {longest}")
        text = self._take(length, what)
        try:
            text.decode()
        except UnicodeDecodeError:
            raise self._wrong(f"has text that is not UTF-8 in {what}") from None
        return text

    def _take(self, num_bytes: int, what: str) -> bytes:
        start = self._at
        self._skip(num_bytes, what)
        return self._data[start : self._at]

    def _skip(self, num_bytes: int, what: str) -> None:
        if num_bytes > self._size - self._at:
            raise self._beyond(what)
        self._at += num_bytes

    def _beyond(self, what: str) -> UnsupportedModel:
        return self._wrong(f"ends before {what} does")

    def _wrong(self, what: str) -> UnsupportedModel:
        return UnsupportedModel(f"{self._path} {what}; {AGAIN}")


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")[:80]
