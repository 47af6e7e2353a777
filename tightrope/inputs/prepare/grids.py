"""Grids of patches of any size, as Qwen's towers read them: sizes, order, windows, positions.

A cell is `merge` x `merge` patches, which become one visual token. Towers get patches cell by cell,
cells row by row. Every function answers for one image.
"""

from __future__ import annotations

import math

import numpy as np

from tightrope.arrays import Floats, Indices, Ordinals


def fitted(width: int, height: int, cell: int, least: int, most: int) -> tuple[int, int]:
    """(columns, rows) of cells of `cell` pixels that an image becomes, its shape kept if possible.

    least, most: pixels of what it becomes. An image so long and thin that one row is too much
    already becomes one row, however long. The rounding is Hugging Face's `smart_resize`.
    """
    columns, rows = round(width / cell), round(height / cell)
    if columns * rows * cell * cell > most:
        shrunk = math.sqrt(height * width / most)
        # The quotient of the sides themselves: rounding hangs on the order.
        rows = max(1, math.floor(height / shrunk / cell))
        columns = max(1, math.floor(width / shrunk / cell))
    elif columns * rows * cell * cell < least:
        grown = math.sqrt(least / (height * width))
        rows = math.ceil(height * grown / cell)
        columns = math.ceil(width * grown / cell)
    return columns, rows


def patch_places(columns: int, rows: int, merge: int) -> Indices:
    """Row and column of each patch in its image: int64 [cells, merge * merge, 2]."""
    grid = np.moveaxis(np.indices((rows * merge, columns * merge)), 0, -1)
    cells = grid.reshape(rows, merge, columns, merge, 2).swapaxes(1, 2)
    return np.ascontiguousarray(cells.reshape(rows * columns, merge * merge, 2), np.int64)


def windows(columns: int, rows: int, side: int) -> tuple[Indices, Ordinals]:
    """Cells window by window, int64 [cells], and how many each has, int32 [windows].

    side: of a window in cells; those at the right and lower edge are cut off.
    """
    down, across = (np.arange(length) // side for length in (rows, columns))
    window = down[:, None] * (across[-1] + 1) + across[None]
    order = np.argsort(window.ravel(), kind="stable")
    return order, np.bincount(window.ravel()).astype(np.int32)


def interpolation(columns: int, rows: int, merge: int, side: int) -> tuple[Indices, Floats]:
    """Where each patch reads a table of learned positions, and by how much.

    side: of the square table, whose corners are the image's. Returns places int64 and shares
    float32, both [cells, merge * merge, 4]: the four neighbours' of a bilinear resampling.
    """
    places = patch_places(columns, rows, merge)
    taps, shares = [], []
    for axis, length in enumerate((rows * merge, columns * merge)):
        exact = places[..., axis].astype(np.float32) * np.float32(side - 1)
        exact /= np.float32(max(length - 1, 1))
        below = np.floor(exact)
        offset = np.arange(2)
        taps.append(np.clip(below.astype(np.int64)[..., None] + offset, 0, side - 1))
        distance = np.abs((exact - below)[..., None] - offset.astype(np.float32))
        shares.append(np.maximum(1 - distance, 0))
    shape = (*places.shape[:2], 4)
    index = taps[0][..., :, None] * side + taps[1][..., None, :]
    share = shares[0][..., :, None] * shares[1][..., None, :]
    return index.reshape(shape), share.reshape(shape).astype(np.float32)
