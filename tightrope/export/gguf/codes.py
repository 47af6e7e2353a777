"""GGUF's quantisations as whole numbers with scales: one entry each.

Written from the layouts in ggml-quants.h and ggml-common.h of ggml; the package gguf, which
dequantises, is what they are held against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Array, Bytes, Floats
from tightrope.export.coded import Coded, coded

Levels = tuple[Array, Floats, Floats | None]
"""Of n blocks: levels [n, weights], scales and minima [n, groups]."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One quantisation: bits of a level, and how a block's bytes are read."""

    bits: int
    block_bytes: int
    read: Callable[[Bytes], Levels]


def coded_of(name: str, data: Array, kind: str) -> Coded:
    """A tensor's matrix; data: uint8 [rows, bytes of a row], kind: a name in KINDS."""
    entry, rows = KINDS[kind], data.shape[0]
    blocks = np.ascontiguousarray(data).reshape(-1, entry.block_bytes)
    levels, scale, minimum = entry.read(blocks)
    if minimum is not None:
        minimum = minimum.reshape(rows, -1)
    return coded(name, levels.reshape(rows, -1), entry.bits, scale.reshape(rows, -1), minimum)


def _halves(part: Bytes) -> Floats:
    """float16 numbers [n, count] as float32."""
    return np.ascontiguousarray(part).view(np.float16).astype(np.float32)


def _nibbles(part: Bytes) -> Bytes:
    """Low halves of the last axis, then high ones: [..., 2, bytes]."""
    return np.stack([part & 15, part >> 4], -2)


def _flat(levels: Array) -> Array:
    flat: Array = levels.reshape(len(levels), -1).astype(np.int16)
    return flat


def _q4_0(block: Bytes) -> Levels:
    return _flat(_nibbles(block[:, 2:])) - 8, _halves(block[:, :2]), None


def _q4_1(block: Bytes) -> Levels:
    return _flat(_nibbles(block[:, 4:])), _halves(block[:, :2]), _halves(block[:, 2:4])


def _five_bits(high: Bytes, low: Bytes) -> Array:
    fifth = np.unpackbits(high, axis=1, bitorder="little")
    levels: Array = _flat(_nibbles(low)) | (fifth.astype(np.int16) << 4)
    return levels


def _q5_0(block: Bytes) -> Levels:
    return _five_bits(block[:, 2:6], block[:, 6:]) - 16, _halves(block[:, :2]), None


def _q5_1(block: Bytes) -> Levels:
    levels = _five_bits(block[:, 4:8], block[:, 8:])
    return levels, _halves(block[:, :2]), _halves(block[:, 2:4])


def _q8_0(block: Bytes) -> Levels:
    levels = np.ascontiguousarray(block[:, 2:]).view(np.int8)
    return _flat(levels), _halves(block[:, :2]), None


def _scales_and_minima(block: Bytes) -> tuple[Floats, Floats]:
    """Of the eight groups of a K-block, which begins with d, dmin and twelve bytes of six bits."""
    first, second, mixed = (block[:, 4 + 4 * i : 8 + 4 * i] for i in range(3))
    scale = np.concatenate([first & 63, (mixed & 15) | (first >> 6 << 4)], 1)
    minimum = np.concatenate([second & 63, (mixed >> 4) | (second >> 6 << 4)], 1)
    steps = _halves(block[:, :4])
    return steps[:, :1] * scale.astype(np.float32), -(steps[:, 1:] * minimum.astype(np.float32))


def _q4_k(block: Bytes) -> Levels:
    levels = _flat(_nibbles(block[:, 16:].reshape(-1, 4, 32)))
    return levels, *_scales_and_minima(block)


def _q5_k(block: Bytes) -> Levels:
    low = _nibbles(block[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    fifth = block[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return _flat(low | fifth << 4), *_scales_and_minima(block)


def _q6_k(block: Bytes) -> Levels:
    low = _nibbles(block[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = block[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3
    groups = np.ascontiguousarray(block[:, 192:208]).view(np.int8)
    scale = _halves(block[:, 208:]) * groups.astype(np.float32)
    return _flat(low | high << 4) - 32, scale, None


KINDS = {
    "Q4_0": Kind(4, 18, _q4_0),
    "Q4_1": Kind(4, 20, _q4_1),
    "Q5_0": Kind(5, 22, _q5_0),
    "Q5_1": Kind(5, 24, _q5_1),
    "Q8_0": Kind(8, 34, _q8_0),
    "Q4_K": Kind(4, 144, _q4_k),
    "Q5_K": Kind(5, 176, _q5_k),
    "Q6_K": Kind(6, 210, _q6_k),
}
