"""Images of any size as patches, each cell of them one visual token: Qwen's processors, to the bit.

`preprocessor.json`, everything stated, the values being those of the checkpoint's processor:

    do_resize        true; size: {"shortest_edge": px, "longest_edge": px}, which are areas here:
                     least and most pixels of what an image becomes
    resample         int, Pillow's number of the filter (3 is bicubic)
    do_rescale       bool; rescale_factor: float, usually 1/255
    do_normalize     bool; image_mean, image_std: one float per channel
    patch_size       int, pixels; temporal_patch_size: int, pictures that a patch is made of
    merge_size       int, patches on a side of a cell
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import PIL.Image

from tightrope.arrays import Floats, Pixels
from tightrope.checks import shown
from tightrope.inputs.prepare.pixels import check_keys, check_levels, check_resample, levels, wrong

CONFIG_KEYS = (
    "do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "patch_size", "temporal_patch_size", "merge_size",
)  # fmt: skip
MOST_PIXELS = 1 << 26
"""Of an area in a configuration."""


class Patches:
    """Makes patches of RGB images, as `Qwen2VLImageProcessorPil` does."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises BundleError for a configuration that cannot be followed exactly."""
        _check(config)
        self.least_pixels: int = config["size"]["shortest_edge"]
        self.most_pixels: int = config["size"]["longest_edge"]
        self.patch: int = config["patch_size"]
        self.repeats: int = config["temporal_patch_size"]
        self.merge: int = config["merge_size"]
        self._resample = PIL.Image.Resampling(config["resample"])
        self._levels = levels(config)

    def __call__(self, pictures: Sequence[PIL.Image.Image], columns: int, rows: int) -> Floats:
        """float32 [cells, merge * merge, 3 * temporal * patch * patch] of RGB images.

        pictures: up to `repeats` of one size; the last is repeated where there are fewer. They are
        scaled to columns x rows cells, which stand row by row.
        """
        assert 0 < len(pictures) <= self.repeats, "a patch holds no more pictures"
        patch, merge = self.patch, self.merge
        cells = rows * columns
        shape = (cells * merge * merge, 3, self.repeats, patch, patch)
        values = np.empty(shape, np.float32)
        bounds = pairwise((*range(len(pictures)), self.repeats))
        for picture, (begin, end) in zip(pictures, bounds, strict=True):
            blocks = self._blocks(picture, columns, rows)
            for channel in range(3):
                once = self._levels[channel][blocks[:, channel]]
                values[:, channel, begin:end] = once[:, None]
        return values.reshape(cells, merge * merge, -1)

    def _blocks(self, image: PIL.Image.Image, columns: int, rows: int) -> Pixels:
        """uint8 [patches,3,patch,patch] of one picture."""
        assert image.mode == "RGB", "load_image makes every image RGB"
        patch, merge = self.patch, self.merge
        cell = patch * merge
        scaled = image.resize((columns * cell, rows * cell), resample=self._resample)
        parts = np.asarray(scaled).reshape(rows, merge, patch, columns, merge, patch, 3)
        blocks: Pixels = parts.transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3, patch, patch)
        return blocks


def _check(config: Mapping[str, Any]) -> None:
    """Raises BundleError for a configuration that is not followed exactly here."""
    check_keys(config, CONFIG_KEYS)
    if config.get("do_resize") is not True:
        raise wrong(f"has do_resize {shown(config.get('do_resize'))}; accepted: true")
    size = config.get("size")
    edges = ("shortest_edge", "longest_edge")
    if not isinstance(size, Mapping) or set(size) != set(edges):
        raise wrong(f"has size {shown(size)}; accepted: {', '.join(edges)}")
    areas = [size[edge] for edge in edges]
    if not all(type(area) is int for area in areas) or not 0 < areas[0] <= areas[1] <= MOST_PIXELS:
        raise wrong(f"has size {shown(size)}; accepted: two areas up to {MOST_PIXELS} pixels")
    check_resample(config)
    check_levels(config)
    for name in ("patch_size", "temporal_patch_size", "merge_size"):
        if type(config.get(name)) is not int or not 0 < config[name] <= 1 << 8:
            raise wrong(f"has {name} {shown(config.get(name))}; accepted: a small whole number")
