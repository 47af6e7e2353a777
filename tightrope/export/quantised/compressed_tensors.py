"""compressed-tensors' `pack-quantized`: weights alone, in four or eight bits, by groups or rows.

weight_packed int32 [N,K*bits/32], codes above zero; weight_scale [N,groups]; weight_zero_point
int32 [N*bits/32,groups], packed along outputs; weight_shape [2]; weight_g_idx [K] where groups are
in the order of activations. weight = (q - zero) * scale. The layout is that of
github.com/vllm-project/compressed-tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tightrope.checks import shown
from tightrope.errors import UnsupportedModel
from tightrope.export.coded import AGAIN, Coded, coded
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
    take(config, "format", ("pack-quantized",))
    weights = _weights(config)
    take(weights, "type", ("int",), "int")
    bits = take(weights, "num_bits", (4, 8))
    symmetric = take(weights, "symmetric", (True, False), True)
    strategy = take(weights, "strategy", ("group", "channel"))
    group_size = -1 if strategy == "channel" else group_size_of(weights)
    reordered = weights.get("actorder") in ("group", True)

    def read(name: str, parts: Parts) -> Coded:
        outputs, inputs = _checked_shape(name, parts)
        a_word = WORD_BITS // bits
        groups = groups_of(name, inputs, group_size)
        packed = check_part(name, parts, "weight_packed", (outputs, -(-inputs // a_word)))
        scales = check_scales(name, check_part(name, parts, "weight_scale", (outputs, groups)))
        levels = unpacked(packed, bits)[:, :inputs] - (1 << bits - 1)
        group_of = np.arange(inputs) // (inputs // groups)
        if "weight_g_idx" in parts:
            group_of = check_part(name, parts, "weight_g_idx", (inputs,)).astype(np.int64)
        elif reordered:
            raise UnsupportedModel(
                f"{name} has no weight_g_idx, though actorder says that inputs moved"
            )
        order = in_groups(name, group_of, groups)
        levels = levels if order is None else levels[:, order]
        if not symmetric:
            if "weight_zero_point" not in parts:
                raise UnsupportedModel(f"{name} has no weight_zero_point; {AGAIN}")
            rows = -(-outputs // a_word)
            words = check_part(name, parts, "weight_zero_point", (rows, groups))
            zeros = unpacked(words.T, bits)[:, :outputs].T - (1 << bits - 1)
            levels = levels.reshape(outputs, groups, -1) - zeros[..., None]
        return coded(name, levels.reshape(outputs, inputs), bits, scales, None, order)

    return read


def _weights(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What all groups of modules say of weights; raises UnsupportedModel where they differ."""
    for key in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if config.get(key) and config[key] != {"format": "dense"}:
            raise UnsupportedModel(
                f"the checkpoint's quantisation has {key} {shown(config[key])}, which is not read "
                "here"
            )
    groups = list((config.get("config_groups") or {}).values())
    for group in groups:
        for key in ("input_activations", "output_activations"):
            if group.get(key):
                raise UnsupportedModel(
                    f"the checkpoint quantises its {key} as well, which is not read here; take one "
                    "whose weights alone are quantised, such as W4A16"
                )
    weights = [group.get("weights") for group in groups]
    if not weights or not isinstance(weights[0], dict) or any(w != weights[0] for w in weights):
        raise UnsupportedModel(
            "the checkpoint's quantisation names no weights, or several groups of them that differ"
        )
    found: Mapping[str, Any] = weights[0]
    return found


def _checked_shape(name: str, parts: Parts) -> tuple[int, int]:
    shape = parts["weight_shape"].ravel()
    if len(shape) != 2 or min(shape) < 1:
        raise UnsupportedModel(
            f"{name}.weight_shape is {shape.tolist()}; accepted: outputs and inputs"
        )
    return _shape(parts)


def _shape(parts: Parts) -> tuple[int, int]:
    outputs, inputs = parts["weight_shape"].ravel().tolist()
    return outputs, inputs


METHOD = Method(
    name="compressed-tensors",
    parts=(
        "weight_packed",
        "weight_scale",
        "weight_shape",
        "weight_zero_point",
        "weight_g_idx",
    ),
    optional=("weight_zero_point", "weight_g_idx"),
    shape=_shape,
    reader=_reader,
)
