"""`commit` in numpy: the oracle that the kernel is tested against."""

from __future__ import annotations

import numpy as np

from tightrope.arrays import Array, Ordinals


def commit(slots: Array, new: Array, target: Ordinals) -> None:
    """Write new [N,Hkv,S,D] to the places target [N,Hkv,S] of slots [N,Hkv,C,D]; -1 goes nowhere.

    Keys and values alike. No two tokens of a row and head have the same place.
    """
    for row, head, token in np.argwhere(target >= 0):
        slots[row, head, target[row, head, token]] = new[row, head, token]
