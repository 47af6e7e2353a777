"""The numpy half of a vision tower: what is known without torch.

The other half, which is traced, lies in `export/families/`. Nothing outside the two knows how many
tokens an image has, what stands between them, which arrays the tower reads, or in how many pictures
it looks at one image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import PIL.Image

from tightrope.arrays import Array
from tightrope.inputs.layout import ImageLayout, Size
from tightrope.interface.ranges import Ranges
from tightrope.interface.tensors import Rows


class Prepare(Protocol):
    """Turns an image into the vision graph's inputs."""

    @property
    def detail(self) -> float:
        """Times the resolution, the shorter side of an image below which something would be lost.

        0 where the size of an image says how it is read.
        """

    def __call__(self, pictures: Sequence[PIL.Image.Image], resolution: int) -> dict[str, Array]:
        """Inputs by name of one RGB image; raises InputError for one that cannot be used.

        pictures: the image alone, or frames of one size that are read as one.
        """


class Tower(Protocol):
    """One kind of tower with the sizes of a bundle's `VisionInfo`.

    Made of a `VisionInfo`; raises ValueError for sizes that no export writes.
    """

    def input_rows(self) -> Rows:
        """Inputs of graph vision."""

    def output_rows(self, embed: int) -> Rows:
        """Of graph vision: visual tokens of width E, then what goes with each, signals last."""

    def example_lengths(self) -> dict[str, int]:
        """Lengths of its axes that fit each other, to trace it with."""

    def ranges(self) -> Ranges:
        """Of the axes of graph vision, I and V among them."""

    def token_ranges(self) -> Ranges:
        """Of V, the visual tokens of one image, and of what else selectors read of it."""

    def most_tokens(self, resolution: int) -> int:
        """Visual tokens of the image that has most of them at this resolution."""

    def trial_size(self, resolution: int) -> Size:
        """Of a small picture that shows whether a bundle answers as it should."""

    def layout(self, size: Size, resolution: int) -> ImageLayout:
        """What an image puts in the place of its placeholder.

        size: as it came, upright. Raises InputError for one that this tower does not take.
        """

    def tokens(self, outputs: Mapping[str, Array], size: Size, resolution: int) -> dict[str, Array]:
        """What graph vision gave for one image, by name, as that image's visual tokens in order.

        Every axis I is 1 afterwards, every V that of the image's layout.
        """

    def prepare(self, config: Mapping[str, Any], tables: Mapping[str, Array]) -> Prepare:
        """From preprocessor.json and the arrays of positions.npz; raises BundleError for others."""
