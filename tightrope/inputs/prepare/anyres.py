"""LLaVA-NeXT and LLaVA-OneVision: the whole image in one tile, then in a grid of tiles.

Of the listed grids that one is taken that keeps most of the image's pixels, and of equal ones the
one that wastes least. The image is scaled into it, black around; the tokens of what is black are
left out again. A row of the picture ends with a newline that was learned beside the vocabulary.

`lists`: `grids`, height and width in pixels one behind the other. `sizes`: `most_tiles`, above
which OneVision scales the tokens of the grid down, 0 for LLaVA-NeXT. A resolution is the longest
side of the grids that may be taken; where none is so small, the whole image is all.

Haotian Liu et al. 2024, "LLaVA-NeXT"; Li et al. 2024, arXiv:2408.03326. As Hugging Face's
processor and model have it, an image of several being tiled as one alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import PIL.Image

from tightrope.arrays import Array, Floats, Indices
from tightrope.inputs.layout import ImageLayout, Size, Text, Visual
from tightrope.inputs.prepare.pixels import check_aspect
from tightrope.inputs.prepare.tiles import TileTower, in_grid
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.tensors import VISUAL_EMBEDS

SCALED_FROM = 1.1
"""Above so many times the side that `most_tiles` allow, tokens are scaled down."""
NEWLINE = "newline"


class AnyresTower(TileTower):
    """The numpy half of LLaVA-NeXT's and LLaVA-OneVision's towers."""

    own_sizes = ("most_tiles",)

    def __init__(self, info: VisionInfo) -> None:
        super().__init__(info)
        flat = info.lists.get("grids", ())
        self._grids = tuple(zip(flat[::2], flat[1::2], strict=False))
        wrong = any(side < 1 or side % self.tile for side in flat)
        if not flat or len(flat) % 2 or wrong or (info.signals and info.sizes["most_tiles"]):
            raise ValueError(f"grids are {flat}, tiles {self.tile}, signals {info.signals}")
        if len(info.ids.get(NEWLINE, ())) != 1:
            raise ValueError(f"ids are {info.ids}; one {NEWLINE} is wanted")
        self._most_tiles = info.sizes["most_tiles"]

    def most_tiles(self, resolution: int) -> int:
        """The whole and the largest grid."""
        grids = self._within(resolution)
        return 1 + max((high * wide // self.tile**2 for high, wide in grids), default=0)

    def most_tokens(self, resolution: int) -> int:
        """Of an image that fills a grid, or that is only just not scaled down."""
        most = math.floor(SCALED_FROM**2 * self._most_tiles * self.each) or math.inf
        grids = self._within(resolution)
        tokens = (high * wide // self.tile**2 * self.each for high, wide in grids)
        return self.each + int(min(most, max(tokens, default=0)))

    def cut(self, image: PIL.Image.Image, resolution: int, resample: int) -> list[PIL.Image.Image]:
        """The whole, squeezed into a tile, then the grid's tiles."""
        how = PIL.Image.Resampling(resample)
        whole = image.resize((self.tile, self.tile), resample=how)
        grid = self._grid(image.size, resolution)
        if grid is None:
            return [whole]
        high, wide = grid
        across, down = wide / image.width, high / image.height
        if across < down:
            size = wide, min(math.ceil(image.height * across), high)
        else:
            size = min(math.ceil(image.width * down), wide), high
        canvas = PIL.Image.new("RGB", (wide, high))
        canvas.paste(
            image.resize(size, resample=how), ((wide - size[0]) // 2, (high - size[1]) // 2)
        )
        return [whole, *in_grid(canvas, self.tile)]

    def layout(self, size: Size, resolution: int) -> ImageLayout:
        """The whole, then the picture row by row, each with a newline behind."""
        newline = Text(self.info.ids[NEWLINE])
        shape = self._shape(size, resolution)
        if shape is None:
            return (Visual(self.each), newline)
        rows, columns = self._scaled(*shape)
        return (Visual(self.each), *(Visual(columns), newline) * rows)

    def order(self, size: Size, resolution: int) -> Indices:
        """The whole, then the grid's tokens in the order of the picture, without the border's."""
        whole = np.arange(self.each)
        grid = self._grid(size, resolution)
        if grid is None:
            return whole
        down, across = (length // self.tile for length in grid)
        places = np.arange(self.each, (1 + down * across) * self.each)
        raster = places.reshape(down, across, self.side, self.side).transpose(0, 2, 1, 3)
        raster = raster.reshape(down * self.side, across * self.side)
        inside = raster[tuple(map(_cut_off, raster.shape, self._unpadded(size, grid)))]
        return np.concatenate([whole, inside.reshape(-1)])

    def tokens(self, outputs: Mapping[str, Array], size: Size, resolution: int) -> dict[str, Array]:
        """Scaled down where there are too many."""
        found = super().tokens(outputs, size, resolution)
        shape = self._shape(size, resolution)
        if shape is None or self._scaled(*shape) == shape:
            return found
        embeds = found[VISUAL_EMBEDS][0]
        picture = embeds[self.each :].reshape(*shape, -1)
        scaled = _bilinear(picture, self._scaled(*shape)).reshape(-1, embeds.shape[1])
        return found | {VISUAL_EMBEDS: np.concatenate([embeds[: self.each], scaled])[None]}

    def _within(self, resolution: int) -> list[tuple[int, int]]:
        return [grid for grid in self._grids if max(grid) <= resolution]

    def _grid(self, size: Size, resolution: int) -> tuple[int, int] | None:
        """Height and width of the grid that an image is scaled into."""
        check_aspect(size)
        grids = self._within(resolution)
        if not grids:
            return None
        width, height = size

        def worth(grid: tuple[int, int]) -> tuple[int, int]:
            high, wide = grid
            scale = min(wide / width, high / height)
            effective = min(int(width * scale) * int(height * scale), width * height)
            return effective, effective - wide * high

        return max(grids, key=worth)

    def _unpadded(self, size: Size, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens that the image itself takes in its grid; none if too thin."""
        width, height = size
        rows, columns = (length // self.tile * self.side for length in grid)
        # Each step as Hugging Face has it: the order of a product decides how it is rounded.
        if width / height > columns / rows:
            left = int(round(height * (columns / width), 7))
            rows -= (rows - left) // 2 * 2
        else:
            left = int(round(width * (rows / height), 7))
            columns -= (columns - left) // 2 * 2
        return rows, columns

    def _shape(self, size: Size, resolution: int) -> tuple[int, int] | None:
        """Rows and columns of the grid's tokens before they are scaled."""
        grid = self._grid(size, resolution)
        return None if grid is None else self._unpadded(size, grid)

    def _scaled(self, rows: int, columns: int) -> tuple[int, int]:
        if not self._most_tiles:
            return rows, columns
        ratio = math.sqrt(rows * columns / (self._most_tiles * self.each))
        if ratio <= SCALED_FROM:
            return rows, columns
        return int(rows // ratio), int(columns // ratio)


def _cut_off(length: int, left: int) -> slice:
    border = (length - left) // 2
    return slice(border, length - border)


def _bilinear(picture: Floats, shape: tuple[int, int]) -> Floats:
    """[H,W,E] scaled to `shape`, as torch does it without aligned corners."""
    for axis, length in enumerate(shape):
        given = picture.shape[axis]
        place = (np.arange(length, dtype=np.float32) + np.float32(0.5)) * np.float32(given / length)
        place = np.maximum(place - np.float32(0.5), np.float32(0))
        low = np.minimum(place.astype(np.int64), given - 1)
        high = np.minimum(low + 1, given - 1)
        share = (place - low).astype(np.float32).reshape(-1, *(1,) * (2 - axis))
        picture = (1 - share) * picture.take(low, axis) + share * picture.take(high, axis)
    return picture
