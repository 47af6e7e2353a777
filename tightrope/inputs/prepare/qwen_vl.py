"""The towers of Qwen2.5-VL and Qwen3-VL: images of any size, one visual token a cell of patches.

A resolution is a budget: the side of a square whose area an image may take. What the checkpoint's
processor would scale to more is scaled to at most that.

The sizes of a bundle's `VisionInfo`, 0 where a tower has no such thing:

    patch_size, temporal_patch_size, merge_size   as in preprocessor.json
    least_pixels     that an image is scaled to, unless the budget is smaller
    window           cells on a side of a window, beyond which most blocks do not look
    table            positions on a side of the learned table
    deepstack        levels that enter the language model's first layers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, isqrt
from typing import Any

import numpy as np
import PIL.Image

from tightrope.arrays import Array
from tightrope.errors import BundleError, InputError
from tightrope.inputs.layout import ImageLayout, Size, Visual
from tightrope.inputs.prepare.grids import fitted, interpolation, patch_places, windows
from tightrope.inputs.prepare.patches import Patches
from tightrope.inputs.prepare.pixels import check_aspect
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.ranges import AxisRange, Ranges
from tightrope.interface.tensors import DEEPSTACK, VISUAL_EMBEDS, Rows, TensorSpec

PIXEL_VALUES = "pixel_values"
PATCH_PLACES = "patch_places"
CU_SEQLENS = "cu_seqlens"
CU_WINDOW_SEQLENS = "cu_window_seqlens"
TABLE_PLACES = "table_places"
TABLE_SHARES = "table_shares"
SIZES = (
    "patch_size", "temporal_patch_size", "merge_size", "least_pixels", "window", "table",
    "deepstack",
)  # fmt: skip
_EXAMPLE = {"V": 24, "W": 5}


class QwenTower:
    """The numpy half of either tower."""

    def __init__(self, info: VisionInfo) -> None:
        if set(info.sizes) != set(SIZES):
            raise ValueError(f"a qwen_vl tower has the sizes {SIZES}, not {info.sizes}")
        self.info, sizes = info, info.sizes
        if min(sizes.values()) < 0 or min(sizes[name] for name in SIZES[:4]) < 1:
            raise ValueError(f"a qwen_vl tower has no sizes such as {info.sizes}")
        self.merge, self.window = sizes["merge_size"], sizes["window"]
        self.cell = sizes["patch_size"] * self.merge
        self.table, self.levels = sizes["table"], sizes["deepstack"]
        self.wide = 3 * sizes["temporal_patch_size"] * sizes["patch_size"] ** 2
        sides = info.resolutions
        if not sides or any(side < 1 or side % self.cell for side in sides):
            raise ValueError(f"resolutions are {sides}, cells {self.cell}")

    def input_rows(self) -> Rows:
        """Patches and where they stand, V cells of them; then what the tower needs of its own."""
        patches = self.merge**2
        rows = [
            TensorSpec(PIXEL_VALUES, "activation", ("V", patches, self.wide)),
            TensorSpec(PATCH_PLACES, "int64", ("V", patches, 2)),
            TensorSpec(CU_SEQLENS, "int32", (2,)),
        ]
        if self.window:
            rows.append(TensorSpec(CU_WINDOW_SEQLENS, "int32", ("W",)))
        if self.table:
            rows.append(TensorSpec(TABLE_PLACES, "int64", ("V", patches, 4)))
            rows.append(TensorSpec(TABLE_SHARES, "float32", ("V", patches, 4)))
        return tuple(rows)

    def output_rows(self, embed: int) -> Rows:
        """visual_embeds [1,V,E] and the levels of DeepStack [1,V,D,E]."""
        embeds = TensorSpec(VISUAL_EMBEDS, "activation", (1, "V", embed))
        if not self.levels:
            return (embeds,)
        return embeds, TensorSpec(DEEPSTACK, "activation", (1, "V", self.levels, embed))

    def example_lengths(self) -> dict[str, int]:
        """One image of a few windows."""
        return dict(_EXAMPLE)

    def ranges(self) -> Ranges:
        """Of V, and of W, the bounds between windows."""
        ranges = self.token_ranges()
        if self.window:
            # An image of one row has most.
            _, usual, most = ranges["V"]
            common = ceil(isqrt(usual) / self.window) ** 2
            ranges["W"] = AxisRange(2, 1 + common, 1 + ceil(most / self.window))
        return ranges

    def token_ranges(self) -> Ranges:
        """Of V."""
        sides = self.info.resolutions
        return {"V": AxisRange(1, self.most_tokens(sides[0]), self.most_tokens(max(sides)))}

    def most_tokens(self, resolution: int) -> int:
        """Those of a square."""
        return (resolution // self.cell) ** 2

    def trial_size(self, resolution: int) -> Size:
        """A square that is not scaled."""
        return resolution, resolution

    def layout(self, size: Size, resolution: int) -> ImageLayout:
        """A grid of its own shape."""
        columns, rows = self.grid(size, resolution)
        return (Visual(columns * rows, columns),)

    def grid(self, size: Size, resolution: int) -> tuple[int, int]:
        """Columns and rows of cells of an image.

        Raises InputError for one that is too long and thin, or whose one row is too long.
        """
        check_aspect(size)
        most = resolution**2
        least = min(self.info.sizes["least_pixels"], most)
        columns, rows = fitted(*size, self.cell, least, most)
        if columns * rows > self.most_tokens(resolution):
            raise InputError(
                f"an image of {size[0]} x {size[1]} pixels becomes {columns} x {rows} visual "
                f"tokens, at resolution {resolution} there are at most "
                f"{self.most_tokens(resolution)}: cut it into pieces, or choose a larger one"
            )
        return columns, rows

    def tokens(self, outputs: Mapping[str, Array], size: Size, resolution: int) -> dict[str, Array]:
        """Row by row; the graph gives them window by window."""
        if not self.window:
            return dict(outputs)
        order, _ = windows(*self.grid(size, resolution), self.window)
        back = np.argsort(order)
        return {name: array[:, back] for name, array in outputs.items()}

    def prepare(self, config: Mapping[str, Any], tables: Mapping[str, Array]) -> _Prepare:
        """No tables: the tower has its own, of which it is told the places."""
        patches = Patches(config)
        sizes = self.info.sizes
        told = (patches.patch, patches.repeats, patches.merge, patches.least_pixels)
        if told != tuple(sizes[name] for name in SIZES[:4]):
            raise BundleError(
                f"preprocessor.json has {told} for {', '.join(SIZES[:4])}, bundle.json has "
                f"{sizes}; export the bundle again"
            )
        return _Prepare(self, patches)


class _Prepare:
    detail = 0.0

    def __init__(self, tower: QwenTower, patches: Patches) -> None:
        self._tower, self._patches = tower, patches

    def __call__(self, pictures: Sequence[PIL.Image.Image], resolution: int) -> dict[str, Array]:
        """Cells row by row, or window by window where the tower has windows."""
        tower = self._tower
        columns, rows = tower.grid(pictures[0].size, resolution)
        inputs: dict[str, Array] = {
            PIXEL_VALUES: self._patches(pictures, columns, rows),
            PATCH_PLACES: patch_places(columns, rows, tower.merge),
        }
        if tower.table:
            places, shares = interpolation(columns, rows, tower.merge, tower.table)
            inputs |= {TABLE_PLACES: places, TABLE_SHARES: shares}
        patches = tower.merge**2
        bounds = np.array([0, columns * rows * patches], np.int32)
        if not tower.window:
            return {**inputs, CU_SEQLENS: bounds}
        order, lengths = windows(columns, rows, tower.window)
        inputs = {name: array[order] for name, array in inputs.items()}
        within = np.cumsum([0, *(lengths * patches)], dtype=np.int32)
        return {**inputs, CU_SEQLENS: bounds, CU_WINDOW_SEQLENS: within}
