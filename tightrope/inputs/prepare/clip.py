"""A CLIP tower over square images: CLS before the patches, positions learned by resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import PIL.Image

from tightrope.arrays import Array, Floats
from tightrope.errors import BundleError
from tightrope.foreign import translated
from tightrope.inputs.layout import ImageLayout, Visual
from tightrope.inputs.prepare.pixels import SquarePixels
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.ranges import AxisRange, Ranges
from tightrope.interface.tensors import Rows, TensorSpec, vision_outputs
from tightrope.typed import typed_array

PIXEL_VALUES = "pixel_values"
POSITION_TABLE = "position_table"
_EXAMPLE_PATCHES = 64
"""On a side of the picture that the tower is traced with."""


class ClipTower:
    """The numpy half of LLaVA-1.5's tower."""

    def __init__(self, info: VisionInfo) -> None:
        self.info = info
        wanted = ("patch_size", "hidden_size", "head_dim")
        if set(info.sizes) != set(wanted) or min(info.sizes.values()) < 1:
            raise ValueError(f"a clip tower has the sizes {wanted}, not {info.sizes}")
        self.patch, self.width, self.head_dim = (info.sizes[name] for name in wanted)
        sides = info.resolutions
        if not sides or any(side < 1 or side % self.patch for side in sides):
            raise ValueError(f"resolutions are {sides}, patches {self.patch}")

    def input_rows(self) -> Rows:
        """Pixels, and position embeddings of CLS and every patch; P = 1 + V."""
        return (
            TensorSpec(PIXEL_VALUES, "activation", ("I", 3, "H", "W")),
            TensorSpec(POSITION_TABLE, "activation", (1, "P", self.width)),
        )

    def output_rows(self, embed: int) -> Rows:
        """visual_embeds [I,V,E] and the bundle's signals."""
        return vision_outputs(self.width, self.head_dim, embed, self.info.signals)

    def example_lengths(self) -> dict[str, int]:
        """One picture whose patches and CLS fill the position table."""
        side = _EXAMPLE_PATCHES * self.patch
        return {"H": side, "W": side, "P": 1 + _EXAMPLE_PATCHES**2}

    def ranges(self) -> Ranges:
        """Of H, W, P and V: they grow together, from one resolution to the next."""
        sides = self.info.resolutions
        pixels = AxisRange(min(sides), sides[0], max(sides))
        visual = AxisRange(*map(self._tokens, pixels))
        return {"H": pixels, "W": pixels, "V": visual, "P": AxisRange(*(1 + n for n in visual))}

    def layout(self, resolution: int) -> ImageLayout:
        """All patches in raster order."""
        return (Visual(self._tokens(resolution)),)

    def prepare(self, config: Mapping[str, Any], tables: Mapping[str, Array]) -> _Prepare:
        """tables: the position embeddings float32 [1,P,Dv] by resolution."""
        positions = {}
        with translated(BundleError, "positions.npz is damaged", "export the checkpoint again"):
            for side in self.info.resolutions:
                shape = (1, 1 + self._tokens(side), self.width)
                table = tables.get(str(side))
                positions[side] = typed_array(table, "float32", shape, f"resolution {side}")
        return _Prepare(SquarePixels(config), positions)

    def _tokens(self, resolution: int) -> int:
        return (resolution // self.patch) ** 2


class _Prepare:
    def __init__(self, pixels: SquarePixels, tables: dict[int, Floats]) -> None:
        self._pixels, self._tables = pixels, tables

    def __call__(self, images: Sequence[PIL.Image.Image], resolution: int) -> dict[str, Array]:
        """pixel_values [I,3,R,R] and the position table of this resolution."""
        return {
            PIXEL_VALUES: self._pixels(images, resolution),
            POSITION_TABLE: self._tables[resolution],
        }
