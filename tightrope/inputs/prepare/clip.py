"""A CLIP or SigLIP tower over square images: positions by resolution, CLS before the patches.

SigLIP has no CLS; that is all in which the two differ here. Gemma 3 is SigLIP whose patches are
averaged, `pool` x `pool` of them into a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import PIL.Image

from tightrope.arrays import Array, Floats
from tightrope.errors import BundleError
from tightrope.foreign import translated
from tightrope.inputs.layout import ImageLayout, Size, Visual
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
    """The numpy half of LLaVA-1.5's and of Gemma 3's towers."""

    def __init__(self, info: VisionInfo, leading: int = 1, pools: bool = False) -> None:
        """leading: tokens before those of the patches: CLS. pools: whether patches are averaged."""
        self.info, self.leading = info, leading
        wanted = ("patch_size", "hidden_size", "head_dim", *(("pool",) if pools else ()))
        if set(info.sizes) != set(wanted) or min(info.sizes.values()) < 1:
            raise ValueError(f"a {info.kind} tower has the sizes {wanted}, not {info.sizes}")
        self.patch, self.width, self.head_dim = (info.sizes[name] for name in wanted[:3])
        self.cell = self.patch * info.sizes.get("pool", 1)
        """Pixels on a side of what becomes a token."""
        sides = info.resolutions
        # SigLIP was trained at 384 pixels, of which its patches of 14 leave six out.
        whole = sides if leading or pools else sides[1:]
        if not sides or min(sides) < self.cell or any(side % self.cell for side in whole):
            raise ValueError(f"resolutions are {sides}, patches {self.cell}")

    def input_rows(self) -> Rows:
        """Pixels, and position embeddings of CLS and every patch; P of them."""
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
        return {"H": side, "W": side, "P": self.leading + _EXAMPLE_PATCHES**2}

    def ranges(self) -> Ranges:
        """H, W, P and V grow together, from one resolution to the next."""
        sides = self.info.resolutions
        pixels = AxisRange(min(sides), sides[0], max(sides))
        return {"I": AxisRange(1, 1, 1), "H": pixels, "W": pixels, **self.token_ranges()}

    def token_ranges(self) -> Ranges:
        """Of V and P."""
        sides = self.info.resolutions
        visual = AxisRange(*map(self.most_tokens, (min(sides), sides[0], max(sides))))
        positions = AxisRange(*map(self._positions, (min(sides), sides[0], max(sides))))
        return {"V": visual, "P": positions}

    def most_tokens(self, resolution: int) -> int:
        """All images have as many."""
        return (resolution // self.cell) ** 2

    def _positions(self, resolution: int) -> int:
        return self.leading + (resolution // self.patch) ** 2

    def trial_size(self, resolution: int) -> Size:
        """What the tower sees of any picture."""
        return resolution, resolution

    def layout(self, size: Size, resolution: int) -> ImageLayout:
        """All tokens in raster order, whatever the image's size."""
        return (Visual(self.most_tokens(resolution)),)

    def tokens(self, outputs: Mapping[str, Array], size: Size, resolution: int) -> dict[str, Array]:
        """As they are."""
        return dict(outputs)

    def prepare(self, config: Mapping[str, Any], tables: Mapping[str, Array]) -> _Prepare:
        """tables: the position embeddings float32 [1,P,Dv] by resolution."""
        positions = {}
        with translated(BundleError, "positions.npz is damaged", "export the checkpoint again"):
            for side in self.info.resolutions:
                shape = (1, self._positions(side), self.width)
                table = tables.get(str(side))
                positions[side] = typed_array(table, "float32", shape, f"resolution {side}")
        return _Prepare(SquarePixels(config), positions)


class _Prepare:
    def __init__(self, pixels: SquarePixels, tables: dict[int, Floats]) -> None:
        self._pixels, self._tables, self.detail = pixels, tables, pixels.detail

    def __call__(self, pictures: Sequence[PIL.Image.Image], resolution: int) -> dict[str, Array]:
        """pixel_values [1,3,R,R] and the position table of this resolution."""
        return {
            PIXEL_VALUES: self._pixels(pictures, resolution),
            POSITION_TABLE: self._tables[resolution],
        }
