"""How far two models' logits of one text lie apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tightrope.arrays import Array, Floats


def text_logits(model: Any, token_ids: Array) -> Floats:
    """Logits of a text, float32 [S,vocab]."""
    with torch.no_grad():
        ids = torch.from_numpy(token_ids)[None]
        logits: Floats = model(input_ids=ids, use_cache=False).logits[0].numpy()
    return logits


def relative(expected: Floats, measured: Floats) -> float:
    """Root mean square of the difference, as a share of that of the logits."""
    return float(np.sqrt(((measured - expected) ** 2).mean() / (expected**2).mean()))
