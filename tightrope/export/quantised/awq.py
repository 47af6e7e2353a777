"""AWQ as AutoAWQ's `gemm` writes it: zero points, eight codes of four bits a word.

qweight [K,N/8] and qzeros [K/group,N/8] int32, scales [K/group,N]; weight = (q - zero) * scale.
AWQ, Lin et al. 2023, arXiv:2306.00978; the layout is that of github.com/casper-hansen/AutoAWQ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tightrope.arrays import Array
from tightrope.export.coded import Coded, coded
from tightrope.export.quantised.method import (
    Method,
    Parts,
    Read,
    check_part,
    check_scales,
    group_size_of,
    groups_of,
    take,
    unpacked,
)

_BITS = 4
_A_WORD = 8
_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)
"""Of the codes of a word, from the lowest bits up."""


def _reader(config: Mapping[str, Any]) -> Read:
    take(config, "bits", (_BITS,))
    take(config, "version", ("gemm", "GEMM"), "gemm")
    take(config, "zero_point", (True,), True)
    group_size = group_size_of(config)

    def read(name: str, parts: Parts) -> Coded:
        inputs, words = parts["qweight"].shape
        groups, outputs = groups_of(name, inputs, group_size), words * _A_WORD
        zeros = _by_column(check_part(name, parts, "qzeros", (groups, words)))
        scales = check_scales(name, check_part(name, parts, "scales", (groups, outputs)))
        codes = _by_column(parts["qweight"]).reshape(groups, -1, outputs)
        levels = (codes - zeros[:, None]).reshape(inputs, outputs)
        return coded(name, levels.T, _BITS, scales.T, None)

    return read


def _by_column(words: Array) -> Array:
    """Codes [R,N] of words [R,N/8]."""
    codes = unpacked(words, _BITS).reshape(len(words), -1, _A_WORD)
    return codes[..., np.argsort(_COLUMNS)].reshape(len(words), -1)


def _shape(parts: Parts) -> tuple[int, int]:
    inputs, words = parts["qweight"].shape
    return words * _A_WORD, inputs


METHOD = Method(
    name="awq",
    parts=("qweight", "qzeros", "scales"),
    optional=(),
    shape=_shape,
    reader=_reader,
)
