"""What towers share that look at an image in square tiles, all of one size.

`sizes` of their VisionInfo: `tile_size` in pixels; `tokens_per_side` of the tokens that a tile
becomes; `positions` of the tower, among them CLS where it has one; `hidden_size` and `head_dim`.
Tiles stand row by row, and so do the tokens inside each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from tightrope.arrays import Array, Floats, Indices
from tightrope.errors import BundleError
from tightrope.foreign import translated
from tightrope.inputs.layout import ImageLayout, Size
from tightrope.inputs.prepare.clip import PIXEL_VALUES, POSITION_TABLE
from tightrope.inputs.prepare.pixels import SquarePixels
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.ranges import AxisRange, Ranges
from tightrope.interface.tensors import Rows, TensorSpec, vision_outputs
from tightrope.typed import typed_array

TILES = "tile"
"""The position table's name in positions.npz: all tiles have the same."""
TILING = "tiling"
"""Entry of preprocessor.json with what the checkpoint says of tiles: `sizes` were made of it."""
MOST_TILES_A_SIDE = 16
"""Of an image at the highest resolution."""
SIZES = ("tile_size", "tokens_per_side", "positions", "hidden_size", "head_dim")


class TileTower:
    """The numpy half of a tower over tiles; its kinds say how an image is cut and laid out."""

    own_sizes: tuple[str, ...] = ()
    """What a kind's `sizes` have besides the shared ones."""

    def __init__(self, info: VisionInfo) -> None:
        self.info = info
        wanted = (*SIZES, *self.own_sizes)
        if set(info.sizes) != set(wanted) or min(info.sizes.values()) < 0:
            raise ValueError(
                f"a tower of kind {info.kind} has the sizes {wanted}, not {info.sizes}"
            )
        self.tile, self.side, self.positions, self.width, self.head_dim = (
            info.sizes[name] for name in SIZES
        )
        if min(self.tile, self.side, self.positions, self.width, self.head_dim) < 1:
            raise ValueError(f"sizes are {info.sizes}")
        highest = MOST_TILES_A_SIDE * self.tile
        if not all(self.tile <= side <= highest for side in info.resolutions or (0,)):
            raise ValueError(f"resolutions are {info.resolutions}, tiles {self.tile}")
        self.each = self.side**2
        """Tokens of one tile."""

    def most_tiles(self, resolution: int) -> int:
        """Of the image that has most of them."""
        raise NotImplementedError

    def most_tokens(self, resolution: int) -> int:
        return self.each * self.most_tiles(resolution)

    def cut(self, image: PIL.Image.Image, resolution: int, resample: int) -> list[PIL.Image.Image]:
        """The tiles in which the tower looks at an image; resample: Pillow's number."""
        raise NotImplementedError

    def layout(self, size: Size, resolution: int) -> ImageLayout:
        raise NotImplementedError

    def order(self, size: Size, resolution: int) -> Indices:
        """[V]: places of the image's visual tokens among the tokens of all its tiles."""
        raise NotImplementedError

    def input_rows(self) -> Rows:
        """Pixels of all tiles of one image, and the position embeddings that all share."""
        return (
            TensorSpec(PIXEL_VALUES, "activation", ("I", 3, self.tile, self.tile)),
            TensorSpec(POSITION_TABLE, "activation", (1, self.positions, self.width)),
        )

    def output_rows(self, embed: int) -> Rows:
        """visual_embeds [I,V,E] and the bundle's signals."""
        return vision_outputs(self.width, self.head_dim, embed, self.info.signals)

    def example_lengths(self) -> dict[str, int]:
        """Tiles alone vary in their number."""
        return {}

    def ranges(self) -> Ranges:
        """I counts tiles; the rest is fixed."""
        first, *_ = sides = self.info.resolutions
        tiles = AxisRange(1, self.most_tiles(first), max(map(self.most_tiles, sides)))
        fixed = {"V": self.each, "P": self.positions}
        return {"I": tiles, **{axis: AxisRange(n, n, n) for axis, n in fixed.items()}}

    def token_ranges(self) -> Ranges:
        """Of V and P."""
        first, *_ = sides = self.info.resolutions
        most = max(map(self.most_tokens, sides))
        visual = AxisRange(min(self.each, most), self.most_tokens(first), most)
        leading = max(0, self.positions - self.each)
        return {"V": visual, "P": AxisRange(*(leading + count for count in visual))}

    def trial_size(self, resolution: int) -> Size:
        """One tile's."""
        return self.tile, self.tile

    def tokens(self, outputs: Mapping[str, Array], size: Size, resolution: int) -> dict[str, Array]:
        """The tokens of all tiles in one row; what stands before a tile's is the first one's."""
        order = self.order(size, resolution)
        return {name: self._in_order(value, order) for name, value in outputs.items()}

    def _in_order(self, value: Array, order: Indices) -> Array:
        leading = value.shape[1] - self.each
        rows = value[:, leading:].reshape(-1, *value.shape[2:])
        return np.concatenate([value[:1, :leading], rows[None, order]], axis=1)

    def prepare(self, config: Mapping[str, Any], tables: Mapping[str, Array]) -> _Prepare:
        """config: `resample`, and how a tile's pixels become numbers, as `SquarePixels` has it."""
        with translated(BundleError, "positions.npz is damaged", "export the checkpoint again"):
            shape = (1, self.positions, self.width)
            table = typed_array(tables.get(TILES), "float32", shape, "the table of tiles")
        resample = config.get("resample")
        if resample not in tuple(map(int, PIL.Image.Resampling)) or config.get("do_resize"):
            raise BundleError(
                f"preprocessor.json has resample {resample!r} for tiles; export the bundle again"
            )
        steps = {key: value for key, value in config.items() if key != TILING}
        return _Prepare(self, SquarePixels(steps), table, int(resample))


class _Prepare:
    detail = 0.0

    def __init__(
        self, tower: TileTower, pixels: SquarePixels, table: Floats, resample: int
    ) -> None:
        self._tower, self._pixels, self._table = tower, pixels, table
        self._resample = resample

    def __call__(self, pictures: Sequence[PIL.Image.Image], resolution: int) -> dict[str, Array]:
        """pixel_values [I,3,tile,tile] of all tiles, and their positions."""
        (image,) = pictures
        tiles = self._tower.cut(image, resolution, self._resample)
        return {
            PIXEL_VALUES: self._pixels(tiles, self._tower.tile),
            POSITION_TABLE: self._table,
        }


def in_grid(image: PIL.Image.Image, tile: int) -> list[PIL.Image.Image]:
    """Squares of `tile` pixels of an image that is made of them, row by row."""
    return [
        image.crop((left, top, left + tile, top + tile))
        for top in range(0, image.height, tile)
        for left in range(0, image.width, tile)
    ]
