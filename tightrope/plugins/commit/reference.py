"""`commit` in numpy: the oracle that the kernels are tested against, and what int8 keeps of a row.

Int8 is symmetric and has a scale for each token and KV head, of keys and of values. A scale is
float32: one of float16 would lose digits of rows that float16 still holds, for two bytes of 130.
"""

from __future__ import annotations

import numpy as np

from tightrope.arrays import Array, Floats, Ordinals

LARGEST = np.float32(127)
"""Of the whole numbers that a row is rounded to; -128 is left out."""


def commit(slots: Array, new: Array, target: Ordinals) -> None:
    """Write new [N,Hkv,S,D] to the places target [N,Hkv,S] of slots [N,Hkv,C,D]; -1 goes nowhere.

    Keys and values alike. No two tokens of a row and head have the same place.
    """
    for row, head, token in np.argwhere(target >= 0):
        slots[row, head, target[row, head, token]] = new[row, head, token]


def commit_int8(slots: tuple[Array, Floats], new: Array, target: Ordinals) -> None:
    """The same of slots in int8: their numbers int8 [N,Hkv,C,D] and scales float32 [N,Hkv,C,1]."""
    for held, rows in zip(slots, to_int8(new), strict=True):
        commit(held, rows, target)


def to_int8(rows: Array) -> tuple[Array, Floats]:
    """The nearest whole numbers int8 [..,D] of rows [..,D], halves to even, and scales [..,1].

    A row of zeros has the scale 0. One that holds what is no number, or infinite, has such a scale:
    it is none afterwards either.
    """
    wide = rows.astype(np.float32)
    scale = np.abs(wide).max(-1, keepdims=True, initial=0) / LARGEST
    with np.errstate(invalid="ignore"):
        codes = np.rint(wide / np.where(scale > 0, scale, np.float32(1))).astype(np.int8)
    return codes, scale


def from_int8(codes: Array, scale: Floats) -> Floats:
    """The rows float32 [..,D] that whole numbers and their scales stand for."""
    rows: Floats = codes.astype(np.float32) * scale
    return rows
