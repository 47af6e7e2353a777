"""From images to the pixel tensor of the vision graph, as the bundle's `preprocessor.json` says.

The file is one JSON object. `kind` names the module here that reads the rest; each module lists
its keys. Keys are spelled as in Hugging Face's `preprocessor_config.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import PIL.Image

from tightrope.errors import BundleError
from tightrope.runtime.preprocess.clip import ClipPreprocessor


class Preprocessor(Protocol):
    """Turns RGB images into the vision graph's input."""

    def __call__(
        self, images: Sequence[PIL.Image.Image], resolution: int
    ) -> npt.NDArray[np.float32]:
        """pixel_values [I, 3, R, R] of the images, in order, R being `resolution`."""
        ...


KINDS: dict[str, Callable[[Mapping[str, Any]], Preprocessor]] = {
    "clip": ClipPreprocessor,
}


def create_preprocessor(config: Mapping[str, Any]) -> Preprocessor:
    """The preprocessor that `config["kind"]` names.

    Raises BundleError for an unknown kind, and for keys or values that the kind cannot use.
    """
    kind = config.get("kind")
    if kind not in KINDS:
        raise BundleError(
            f"preprocessor.json has kind {kind!r}; this version knows: {', '.join(sorted(KINDS))}. "
            "Export the bundle again, or upgrade"
        )
    return KINDS[kind](config)
