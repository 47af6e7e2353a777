"""InternVL: as many tiles as fit the image's shape best, and behind them the whole in one tile.

Of the grids of `least_tiles` to as many as the resolution allows that one is taken whose shape is
nearest to the image's; of equal ones the larger, up to twice the image's area. A resolution is the
side of a square with the area of all tiles, rounded up: (resolution / tile) squared of them.

`ids`: what stands before (`start`) and behind (`end`) the tokens of all tiles.

Chen et al. 2024, arXiv:2404.16821; as Hugging Face's processor has it.
"""

from __future__ import annotations

import numpy as np
import PIL.Image

from tightrope.arrays import Indices
from tightrope.inputs.layout import ImageLayout, Size, Text, Visual
from tightrope.inputs.prepare.pixels import check_aspect
from tightrope.inputs.prepare.tiles import TileTower, in_grid
from tightrope.inputs.vision import VisionInfo

START, END = "start", "end"


class InternvlTower(TileTower):
    """The numpy half of InternVL's tower."""

    own_sizes = ("least_tiles",)

    def __init__(self, info: VisionInfo) -> None:
        super().__init__(info)
        self._least = info.sizes["least_tiles"]
        if not 1 <= self._least <= self._in_grid(min(info.resolutions)):
            raise ValueError(f"least_tiles is {self._least}, resolutions are {info.resolutions}")
        if set(info.ids) != {START, END}:
            raise ValueError(f"ids are {info.ids}; {START} and {END} are wanted")

    def most_tiles(self, resolution: int) -> int:
        """A whole stands behind more than one."""
        most = self._in_grid(resolution)
        return most + (most > 1)

    def cut(self, image: PIL.Image.Image, resolution: int, resample: int) -> list[PIL.Image.Image]:
        """The grid's tiles, then the whole, both squeezed into their shape."""
        how = PIL.Image.Resampling(resample)
        down, across = self._grid(image.size, resolution)
        canvas = image.resize((across * self.tile, down * self.tile), resample=how)
        tiles = in_grid(canvas, self.tile)
        if len(tiles) > 1:
            tiles.append(image.resize((self.tile, self.tile), resample=how))
        return tiles

    def layout(self, size: Size, resolution: int) -> ImageLayout:
        """All tokens between their marks."""
        ids = self.info.ids
        return Text(ids[START]), Visual(self._count(size, resolution)), Text(ids[END])

    def order(self, size: Size, resolution: int) -> Indices:
        """As they come, tile by tile."""
        return np.arange(self._count(size, resolution))

    def _count(self, size: Size, resolution: int) -> int:
        down, across = self._grid(size, resolution)
        tiles = down * across
        return self.each * (tiles + (tiles > 1))

    def _in_grid(self, resolution: int) -> int:
        """Tiles of the largest grid."""
        return resolution**2 // self.tile**2

    def _grid(self, size: Size, resolution: int) -> tuple[int, int]:
        """Tiles down and across."""
        check_aspect(size)
        width, height = size
        most, best, closest = self._in_grid(resolution), (1, 1), float("inf")
        grids = [
            (across, down)
            for across in range(1, most + 1)
            for down in range(1, most + 1)
            if self._least <= across * down <= most
        ]
        for across, down in sorted(grids, key=lambda grid: grid[0] * grid[1]):
            apart = abs(width / height - across / down)
            small = width * height > 0.5 * self.tile**2 * across * down
            if apart < closest or (apart == closest and small):
                best, closest = (down, across), apart
        return best
