"""GPTQ as AutoGPTQ and GPTQModel write it, in four or eight bits, act-order included.

qweight int32 [K*bits/32,N], packed along inputs; qzeros int32 [groups,N*bits/32], in the format
`gptq` one less than they mean; scales [groups,N]; g_idx [K], the group of each input.
weight = (q - zero) * scale. GPTQ, Frantar et al. 2022, arXiv:2210.17323; the layout is that of
github.com/AutoGPTQ/AutoGPTQ, `gptq_v2` that of github.com/ModelCloud/GPTQModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tightrope.checks import shown
from tightrope.errors import UnsupportedModel
from tightrope.export.coded import Coded, coded
from tightrope.export.quantised.method import (
    WORD_BITS,
    Method,
    Parts,
    Read,
    check_part,
    check_scales,
    group_size_of,
    groups_of,
    in_groups,
    take,
    unpacked,
)


def _reader(config: Mapping[str, Any]) -> Read:
    bits = take(config, "bits", (4, 8))
    lowest = {"gptq": 1, "gptq_v2": 0}[
        take(config, "checkpoint_format", ("gptq", "gptq_v2"), "gptq")
    ]
    reordered = take(config, "desc_act", (False, True), False)
    take(config, "is_marlin_format", (False,), False)
    if config.get("dynamic"):
        raise UnsupportedModel(
            f"the checkpoint's quantisation differs by module ({shown(config['dynamic'])}), which "
            "is not read here"
        )
    group_size, a_word = group_size_of(config), WORD_BITS // bits

    def read(name: str, parts: Parts) -> Coded:
        words, outputs = parts["qweight"].shape
        inputs = words * a_word
        groups = groups_of(name, inputs, group_size)
        check_part(name, parts, "qzeros", (groups, outputs // a_word))
        scales = check_scales(name, check_part(name, parts, "scales", (groups, outputs)))
        codes = unpacked(parts["qweight"].T, bits)
        zeros = unpacked(parts["qzeros"], bits).T + lowest
        group_of = np.arange(inputs) // (inputs // groups)
        if "g_idx" in parts:
            group_of = check_part(name, parts, "g_idx", (inputs,)).astype(np.int64)
        elif reordered:
            raise UnsupportedModel(f"{name} has no g_idx, though desc_act says that inputs moved")
        order = in_groups(name, group_of, groups)
        levels = codes if order is None else codes[:, order]
        levels = levels.reshape(outputs, groups, -1) - zeros[..., None]
        return coded(name, levels.reshape(outputs, inputs), bits, scales.T, None, order)

    return read


def _shape(parts: Parts) -> tuple[int, int]:
    words, outputs = parts["qweight"].shape
    # As many words hold the codes of all outputs here as of so many inputs there.
    return outputs, words * outputs // parts["qzeros"].shape[1]


METHOD = Method(
    name="gptq",
    parts=("qweight", "qzeros", "scales", "g_idx"),
    optional=("g_idx",),
    shape=_shape,
    reader=_reader,
)
