"""Array types by what they hold, so that a signature says it in one word."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Halves = npt.NDArray[np.float16]
Ordinals = npt.NDArray[np.int32]
"""Places in the unpruned token stream, or slots; -1: none."""
Indices = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
Pixels = npt.NDArray[np.uint8]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
