"""Weights in int4 codes by blocks: quantise, dequantise and multiply in numpy."""

from __future__ import annotations

import numpy as np

from tightrope.arrays import Array, Bytes, Codes, Floats, Halves

_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8)


def quantize(
    weight: Floats, block_size: int, bits: int = 4, symmetric: bool = True
) -> tuple[Codes, Halves, Codes]:
    """Codes int8 [K,N], scale float16 and zero int8 [K/block_size,N] of weight [K,N].

    weight is about scale * (codes - zero), codes and zero of `bits` signed bits; zero is 0 where
    `symmetric`. Of a few scales, from the one that clips nothing downwards, each block takes the
    one with the least squared error. Scales are positive, also of a block of zeros: TensorRT 10.3
    refuses others. K must be whole blocks.
    """
    blocks = weight.reshape(-1, block_size, weight.shape[1])
    lowest, highest = -(1 << bits - 1), (1 << bits - 1) - 1
    most, least = np.maximum(blocks.max(1), 0), np.minimum(blocks.min(1), 0)
    if symmetric:
        reach = np.maximum(most / highest, least / lowest)
    else:
        reach = (most - least) / (highest - lowest)
    best: Floats = np.full(reach.shape, np.inf, np.float32)
    codes, zero = np.zeros(blocks.shape, np.int8), np.zeros(reach.shape, np.int8)
    scale = np.ones(reach.shape, np.float16)
    for shrink in _SHRINK if bits == 4 else (1.0,):
        trial = (reach * np.float32(shrink)).astype(np.float16)
        trial[trial == 0] = 1
        step = trial.astype(np.float32)
        middle = np.zeros_like(step) if symmetric else np.rint(lowest - shrink * least / step)
        middle = np.clip(middle, lowest, highest)[:, None]
        rounded = np.clip(np.rint(blocks / step[:, None]) + middle, lowest, highest)
        error = (((rounded - middle) * step[:, None] - blocks) ** 2).sum(1)
        better = error < best
        best, scale = np.where(better, error, best), np.where(better, trial, scale)
        zero = np.where(better, middle[:, 0], zero).astype(np.int8)
        codes[:] = np.where(better[:, None], rounded, codes)
    return codes.reshape(weight.shape), scale, zero


def dequantize(
    codes: Codes, scale: Array, zero: Codes | None = None, shift: Array | None = None
) -> Floats:
    """float32 [K,N]: scale * (codes - zero) + shift.

    codes [K,N]; scale, zero and shift [K/block,N].
    """
    block_size = codes.shape[0] // scale.shape[0]

    def spread(part: Array) -> Floats:
        return np.repeat(part.astype(np.float32), block_size, 0)

    levels = codes.astype(np.float32) if zero is None else codes.astype(np.float32) - spread(zero)
    weight: Floats = levels * spread(scale)
    return weight if shift is None else weight + spread(shift)


def int4_matmul(
    x: Floats,
    codes: Codes,
    scale: Array,
    zero: Codes | None = None,
    shift: Array | None = None,
) -> Floats:
    """x [...,K] times the dequantised weight, float32 [...,N]."""
    product: Floats = x @ dequantize(codes, scale, zero, shift)
    return product


def pack(codes: Codes) -> Bytes:
    """Two codes a byte, the first in the low half, as ONNX stores int4; an odd last one alone."""
    flat: Bytes = codes.ravel().view(np.uint8) & np.uint8(15)
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    packed: Bytes = flat[0::2] | (flat[1::2] << np.uint8(4))
    return packed


def unpack(packed: Bytes, count: int) -> Codes:
    """The first `count` codes, int8, of bytes that `pack` made."""
    low, high = (packed << np.uint8(4)).view(np.int8) >> 4, packed.view(np.int8) >> 4
    codes: Codes = np.stack([low, high], -1).reshape(-1)[:count]
    return codes
