"""The numpy half of a vision tower: what is known without torch.

The other half, which is traced, lies in `export/families/`. Nothing outside the two knows how many
tokens an image has, what stands between them, or which arrays the tower reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import PIL.Image

from tightrope.arrays import Array
from tightrope.inputs.layout import ImageLayout
from tightrope.interface.ranges import Ranges
from tightrope.interface.tensors import Rows


class Prepare(Protocol):
    """Turns images into the vision graph's inputs."""

    def __call__(self, images: Sequence[PIL.Image.Image], resolution: int) -> dict[str, Array]:
        """Inputs by name of RGB images, in order; raises InputError for one that cannot be used."""


class Tower(Protocol):
    """One kind of tower with the sizes of a bundle's `VisionInfo`.

    Made of a `VisionInfo`; raises ValueError for sizes that no export writes.
    """

    def input_rows(self) -> Rows:
        """Inputs of graph vision."""

    def output_rows(self, embed: int) -> Rows:
        """Visual tokens of width E, then the signals that the bundle lists."""

    def example_lengths(self) -> dict[str, int]:
        """Lengths of its axes that fit each other, to trace it with."""

    def ranges(self) -> Ranges:
        """Of its own axes and of V."""

    def layout(self, resolution: int) -> ImageLayout:
        """What an image of this resolution puts in the place of its placeholder."""

    def prepare(self, config: Mapping[str, Any], tables: Mapping[str, Array]) -> Prepare:
        """From preprocessor.json and the arrays of positions.npz; raises BundleError for others."""
