"""Token embeddings, mapped from the bundle and gathered on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tightrope.arrays import Floats
from tightrope.interface.tensors import Dims


class Embeddings:
    """Rows of embeddings.data as float32."""

    def __init__(
        self, file: Path, dtype: str, dims: Dims, scale: float, separators: int = 0
    ) -> None:
        """dtype: float16 or float32, as `file` holds them. scale: multiplies every row.

        separators: rows behind the vocabulary's that a tower brought.
        """
        self._scale = np.float32(scale)
        shape = (dims.vocab_size + separators, dims.hidden_size)
        # No memmap itself: a subclass takes longer over each gathering.
        self._table = np.asarray(np.memmap(file, dtype, "r", shape=shape))

    def __call__(self, token_ids: npt.ArrayLike) -> Floats:
        """[..., E] of token ids [...]."""
        rows: Any = self._table[np.asarray(token_ids)]
        values: Floats = rows.astype(np.float32)
        return values if self._scale == 1 else values * self._scale
