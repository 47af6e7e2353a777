"""How long each axis of a graph may be: what engines are built for and calls stay within."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tightrope.interface.names import GraphName
from tightrope.interface.tensors import Dims

MOST_IMAGES, MOST_ROWS = 4, 4


class AxisRange(NamedTuple):
    """Shortest, most common and longest length."""

    least: int
    usual: int
    most: int


Ranges = dict[str, AxisRange]


def decoder_ranges(
    name: GraphName,
    dims: Dims,
    slots: int,
    prefill_chunk: int,
    stages: int,
    visual: AxisRange | None,
) -> Ranges:
    """Ranges of a decoder graph's axes; an axis that a graph lacks does no harm.

    stages: of its schedule. visual: tokens of one image, None for a text model.
    """
    single = name.role == "decode"
    ranges = {
        "N": AxisRange(1, 1, MOST_ROWS),
        "S": AxisRange(1, 1, 1) if single else AxisRange(1, prefill_chunk, prefill_chunk),
        "C": AxisRange(1, slots // 2, slots),
    }
    # Prefill gets the occupied slots, at first none of them; decode gets all.
    used = AxisRange(1 if single else 0, slots // 2, slots)
    ranges |= {f"U{i}": used for i in range(dims.num_hidden_layers)}
    if visual is not None:
        # All images of a call together, inside one chunk; a call without an image has V = K = 1.
        most = min(MOST_IMAGES * visual.most, prefill_chunk)
        usual = min(visual.usual, most)
        ranges["V"] = AxisRange(1, usual, most)
        ranges |= {f"K{i}": AxisRange(1, max(1, usual >> (i + 1)), most) for i in range(stages)}
    return ranges


def select_ranges(tokens: Mapping[str, AxisRange], prefill_chunk: int) -> Ranges:
    """Ranges of a selector's axes; tokens: those that the tower tells of one image."""
    visual = tokens["V"]
    return {
        "I": AxisRange(1, 1, 1),
        "T": AxisRange(1, min(32, prefill_chunk), prefill_chunk),
        "K": AxisRange(1, max(1, visual.usual // 2), visual.most),
        **tokens,
    }
