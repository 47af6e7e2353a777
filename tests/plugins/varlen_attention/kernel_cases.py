"""Calls of `VarlenAttention` at widths of heads that are no power of two."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tightrope.plugins.cases import Case
from tightrope.plugins.varlen_attention.cases import cases


def at_width(head_dim: int, names: tuple[str, ...]) -> Iterator[Case]:
    """Those of the op's cases, at this width."""
    for case in cases(head_dim):
        if case.name in names:
            yield dataclasses.replace(case, name=f"{case.name}, {head_dim} wide")


CASES = (
    *at_width(72, ("segments that are empty", "segments of a block and of one more")),
    *at_width(80, ("segments of any length",)),
    *at_width(128, ("a token for each segment", "segments of a block and of one more")),
)
