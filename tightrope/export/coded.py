"""Matrices in whole-number codes, the way that quantised checkpoints publish them.

A weight is scale * level, or scale * level + minimum, where a block of inputs shares scale and
minimum. Whatever the checkpoint calls its codes, here they are signed, scales are above zero as
TensorRT 10.3 wants them, and the weight is the very number that the checkpoint means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Array, Codes, Floats, Indices
from tightrope.errors import UnsupportedModel
from tightrope.export.slices import in_slices
from tightrope.plugins.int4_matmul.reference import dequantize

_LOWEST, _HIGHEST = -8, 7
_SMALLEST_BLOCK, _LARGEST_BLOCK = 16, 128
_SMALLEST_NORMAL = np.float32(np.finfo(np.float16).smallest_normal)
_AT_ONCE = 512
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Origins that are no codes."""
AGAIN = "the checkpoint is damaged; get it again"


@dataclass(frozen=True, slots=True)
class Form:
    """How a matrix in codes is stored, without its numbers."""

    bits: int
    """4 or 8."""
    block_size: int
    zero: bool = False
    shift: bool = False
    order: bool = False

    def words(self) -> str:
        """For people: int4 by 32 with minima."""
        parts = [f"int{self.bits} by {self.block_size}"]
        parts += [" with zero points"] * self.zero + [" with minima"] * self.shift
        parts += [" in the order of activations"] * self.order
        return "".join(parts) + ", float16 for TensorRT" * (self.bits == 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A matrix [K,N] that multiplies inputs [...,K]: scale * (codes - zero) + shift."""

    codes: Codes
    """int8 [K,N]; -8..7 where `bits` is 4."""
    bits: int
    """4 or 8."""
    scale: Array
    """float16 or float32 [K/block,N], above zero."""
    zero: Codes | None = None
    """int8 [K/block,N] in -8..7, of four bits alone; None: 0."""
    shift: Array | None = None
    """float16 or float32 [K/block,N]; None: 0. Beside it `zero` is None."""
    order: Indices | None = None
    """int64 [K]: row i of the codes belongs to input order[i]; None: to input i."""

    @property
    def form(self) -> Form:
        """What of it there is to store."""
        block_size = self.codes.shape[0] // self.scale.shape[0]
        parts = (self.zero, self.shift, self.order)
        return Form(self.bits, block_size, *(part is not None for part in parts))

    def weight(self) -> Floats:
        """The matrix as Hugging Face has it, float32 [N,K]."""
        inputs, outputs = self.codes.shape
        weight = np.empty((outputs, inputs), np.float32)
        columns = slice(None) if self.order is None else self.order

        def one(some: slice) -> None:
            zero, shift = (
                None if part is None else part[:, some] for part in (self.zero, self.shift)
            )
            rows = dequantize(self.codes[:, some], self.scale[:, some], zero, shift).T
            weight[some, columns] = rows

        in_slices(outputs, _AT_ONCE, one)  # what is made on the way is four times as large
        return weight


@dataclass(frozen=True, slots=True)
class Published:
    """A matrix as its checkpoint has it."""

    origin: str
    """What the checkpoint calls the way that it is stored, such as Q4_1."""
    read: Callable[[], Coded] | None
    """None: no codes that there is a product for."""


def coded(
    name: str,
    levels: Array,
    bits: int,
    scale: Floats,
    minimum: Floats | None,
    order: Indices | None = None,
) -> Coded:
    """The matrix whose weight is scale * levels + minimum.

    name: of the tensor, for errors. levels: whole numbers [N,K] of `bits` bits, above or around
    zero. scale, minimum: float32 [N,groups]. order: int64 [K], the input of each level. Raises
    UnsupportedModel where numbers are not finite, or groups of a size that no product has.
    """
    _check_finite(name, scale, minimum)
    blocks = levels.reshape(*scale.shape, -1).astype(np.int16)
    blocks = np.where(scale[..., None] < 0, -blocks, blocks)
    blocks[scale == 0] = 0
    step = np.where(scale == 0, _SMALLEST_NORMAL, np.abs(scale))
    if minimum is not None:
        whole = _as_levels(blocks, step, minimum) if bits == 4 else None
        if whole is not None:
            blocks, minimum = whole, None
        else:
            # Around zero the codes are smallest, and so is what int8 activations add to the error.
            middle = np.where(scale == 0, 0, 1 << bits - 1)
            blocks = blocks - middle[..., None].astype(np.int16)
            minimum = minimum + middle * np.abs(scale)
    lowest, highest = (_LOWEST, _HIGHEST) if bits == 4 else (-128, 127)
    zero = _lift(blocks, lowest, highest)
    codes = blocks + zero[..., None]
    as_zeros = bits == 4 and minimum is None and zero.min() >= _LOWEST and zero.max() <= _HIGHEST
    if zero.any() and not as_zeros:
        minimum = (0 if minimum is None else minimum) - zero * step
    times = _blocks_of_a_group(name, blocks.shape[-1])
    return Coded(
        codes=_turned(codes.reshape(levels.shape).astype(np.int8)),
        bits=4 if bits == 4 else 8,
        scale=_turned(narrowed(step), times),
        zero=_turned(zero.astype(np.int8), times) if as_zeros and zero.any() else None,
        shift=None if minimum is None else _turned(narrowed(minimum), times),
        order=order,
    )


def narrowed(values: Array) -> Array:
    """float16 where that loses nothing, else float32."""
    single = values.astype(np.float32)
    with np.errstate(over="ignore"):
        half = single.astype(np.float16)
    return half if np.array_equal(half, single) else single


def _check_finite(name: str, scale: Floats, minimum: Floats | None) -> None:
    for part in (scale, minimum):
        if part is not None and not np.isfinite(part).all():
            raise UnsupportedModel(f"{name} has scales or minima that are NaN or infinite; {AGAIN}")
        with np.errstate(over="ignore"):
            half = np.float16(0) if part is None else part.astype(np.float16)
        if not np.isfinite(half).all() or (part is scale and ((half == 0) != (scale == 0)).any()):
            raise UnsupportedModel(
                f"{name} has scales or minima that float16 cannot hold: export with precision fp32"
            )


def _as_levels(blocks: Array, step: Floats, minimum: Floats) -> Array | None:
    """Levels that contain the minimum, where it is a whole number of steps everywhere."""
    steps = np.rint(minimum / step)
    if not np.array_equal(steps * step, minimum) or np.abs(steps).max() > 1 << 12:
        return None
    moved: Array = blocks + steps[..., None].astype(np.int16)
    lift = _lift(moved, _LOWEST, _HIGHEST)
    return moved if lift.min() >= _LOWEST and lift.max() <= _HIGHEST else None


def _lift(blocks: Array, lowest: int, highest: int) -> Array:
    """What each block's levels need at least, to lie between two codes: [N,K/block]."""
    least, most = blocks.min(-1), blocks.max(-1)
    down, up = np.minimum(highest - most, 0), np.maximum(lowest - least, 0)
    lift: Array = np.where(down < 0, down, up)
    return lift


def _blocks_of_a_group(name: str, group_size: int) -> int:
    """Into how many blocks of a power of two, which ONNX Runtime wants, a group is cut."""
    block_size = min(group_size & -group_size, _LARGEST_BLOCK)
    if block_size < _SMALLEST_BLOCK:
        raise UnsupportedModel(
            f"{name} has groups of {group_size} inputs; products have blocks of a power of two, "
            f"{_SMALLEST_BLOCK} and more"
        )
    return group_size // block_size


def _turned(part: Array, times: int = 1) -> Array:
    """[N,...] by outputs to [...,N], as a product reads it, each row `times`."""
    return np.repeat(part.T, times, 0) if times > 1 else np.ascontiguousarray(part.T)
