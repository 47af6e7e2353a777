"""Idefics3 and SmolVLM: a grid of tiles, each behind its row and column, then the whole in one.

The longer side becomes the resolution, then both become whole tiles. What is one tile then is the
whole alone. Every tile stands behind a mark with its place, each row of them ends in a line break,
and the whole comes last behind a mark of its own:

    <fake><row_1_col_1> tile <fake><row_1_col_2> tile \\n ... \\n\\n <fake><global> whole <fake>

`ids`: `row_1_col_1` and so on for every tile that a resolution may have, each with the mark before;
`line` between rows, `last` behind them; `whole` before the whole and `end` behind it. `sizes`:
`splits`, 0 where the checkpoint looks at wholes alone.

Laurencon et al. 2024, arXiv:2408.12637; as Hugging Face's processor has it.
"""

from __future__ import annotations

import math

import numpy as np
import PIL.Image

from tightrope.arrays import Indices
from tightrope.inputs.layout import ImageLayout, Run, Size, Text, Visual
from tightrope.inputs.prepare.pixels import check_aspect
from tightrope.inputs.prepare.tiles import TileTower, in_grid
from tightrope.inputs.vision import VisionInfo

LINE, LAST, WHOLE, END = "line", "last", "whole", "end"
LONGEST_SIDE = 4096
"""Above it the processor scales an image down again."""


def place(row: int, column: int) -> str:
    """Name of the mark before a tile; both count from 1."""
    return f"row_{row}_col_{column}"


class IdeficsTower(TileTower):
    """The numpy half of Idefics3's and SmolVLM's towers."""

    own_sizes = ("splits",)

    def __init__(self, info: VisionInfo) -> None:
        super().__init__(info)
        most = self._across(max(info.resolutions))
        marks = {place(row, column) for row in range(1, most + 1) for column in range(1, most + 1)}
        wanted = {WHOLE, END} | ({LINE, LAST, *marks} if info.sizes["splits"] else set())
        if max(info.resolutions) > LONGEST_SIDE or not wanted <= set(info.ids):
            raise ValueError(f"resolutions are {info.resolutions}, ids {sorted(info.ids)}")

    def most_tiles(self, resolution: int) -> int:
        most = self._across(resolution) ** 2
        return most + (most > 1)

    def cut(self, image: PIL.Image.Image, resolution: int, resample: int) -> list[PIL.Image.Image]:
        """The grid's tiles, then the whole, scaled step by step as the processor does."""
        how = PIL.Image.Resampling(resample)
        scaled = image.resize(_to_longest(image.size, resolution), resample=how)
        whole = self.tile, self.tile
        if not self.info.sizes["splits"]:
            return [scaled.resize(whole, resample=how)]
        scaled = scaled.resize(self._to_tiles(scaled.size), resample=how)
        if scaled.size == whole:
            return [scaled]
        return [*in_grid(scaled, self.tile), scaled.resize(whole, resample=how)]

    def layout(self, size: Size, resolution: int) -> ImageLayout:
        """Every tile behind its place, the whole last."""
        ids, tokens = self.info.ids, Visual(self.each)
        down, across = self._grid(size, resolution)
        runs: list[Run] = []
        for row in range(1, down + 1):
            for column in range(1, across + 1):
                runs += [Text(ids[place(row, column)]), tokens]
            runs.append(Text(ids[LINE if row < down else LAST]))
        return (*runs, Text(ids[WHOLE]), tokens, Text(ids[END]))

    def order(self, size: Size, resolution: int) -> Indices:
        """As they come, tile by tile."""
        down, across = self._grid(size, resolution)
        return np.arange(self.each * (down * across + 1))

    def _across(self, resolution: int) -> int:
        """Tiles along the longer side."""
        return math.ceil(resolution / self.tile) if self.info.sizes["splits"] else 1

    def _grid(self, size: Size, resolution: int) -> tuple[int, int]:
        """Tiles down and across, none where the whole is all."""
        check_aspect(size)
        if not self.info.sizes["splits"]:
            return 0, 0
        width, height = self._to_tiles(_to_longest(size, resolution))
        if (width, height) == (self.tile, self.tile):
            return 0, 0
        return height // self.tile, width // self.tile

    def _to_tiles(self, size: Size) -> Size:
        """The size in whole tiles; the shorter side follows the longer one's."""
        width, height = size
        ratio = width / height
        if width >= height:
            width = self._up(width)
            height = self._up(int(width / ratio))
        else:
            height = self._up(height)
            width = self._up(int(height * ratio))
        return width, height

    def _up(self, length: int) -> int:
        return math.ceil(length / self.tile) * self.tile


def _to_longest(size: Size, longest: int) -> Size:
    """The size with its longer side at `longest`, the shorter one even."""
    width, height = size
    ratio = width / height
    if width >= height:
        width, height = longest, int(longest / ratio)
        height += height % 2
    else:
        width, height = int(longest * ratio), longest
        width += width % 2
    return max(width, 1), max(height, 1)
