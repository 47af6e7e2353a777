"""Matrices as AWQ, GPTQ and compressed-tensors store them, written code by code.

Nothing of the readers is used: each word is put together as the formats' own packages do it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
Written = tuple[dict[str, Any], Any]
"""Parts of a matrix, and the weight [N,K] that they mean, in float64."""


def drawn(rng: Any, outputs: int, groups: int, dtype: Any = np.float16) -> Any:
    return rng.uniform(0.005, 0.02, (groups, outputs)).astype(dtype)


def meant(codes: Any, zeros: Any, scales: Any, group_of: Any) -> Any:
    """codes [K,N], zeros and scales [groups,N] -> the weight [N,K]."""
    levels = codes.astype(np.float64) - zeros.astype(np.float64)[group_of]
    return (levels * scales.astype(np.float64)[group_of]).T


def words(codes: Any, bits: int, order: Any = None) -> Any:
    """int32 [R, C*bits/32] of codes [R,C], the first in the lowest bits."""
    count = 32 // bits
    rows, columns = codes.shape
    packed = np.zeros((rows, -(-columns // count)), np.uint32)
    for column in range(packed.shape[1]):
        for place in range(count):
            source = column * count + (place if order is None else order[place])
            if source < columns:
                packed[:, column] |= codes[:, source].astype(np.uint32) << np.uint32(place * bits)
    return packed.view(np.int32)


def awq(rng: Any, inputs: int, outputs: int, group_size: int) -> Written:
    size = inputs if group_size == -1 else group_size
    codes = rng.integers(0, 16, (inputs, outputs))
    zeros = rng.integers(0, 16, (inputs // size, outputs))
    scales = drawn(rng, outputs, inputs // size)
    parts = {
        "qweight": words(codes, 4, AWQ_ORDER),
        "qzeros": words(zeros, 4, AWQ_ORDER),
        "scales": scales,
    }
    return parts, meant(codes, zeros, scales, np.arange(inputs) // size)


def gptq(
    rng: Any,
    inputs: int,
    outputs: int,
    group_size: int,
    bits: int = 4,
    symmetric: bool = True,
    moved: bool = False,
    less: int = 1,
) -> Written:
    """less: by how much stored zeros are less than they mean."""
    size = inputs if group_size == -1 else group_size
    codes = rng.integers(0, 1 << bits, (inputs, outputs))
    zeros = np.full((inputs // size, outputs), 1 << bits - 1)
    if not symmetric:
        zeros = rng.integers(1, 1 << bits, zeros.shape)
    scales, group_of = drawn(rng, outputs, inputs // size), np.arange(inputs) // size
    if moved:
        group_of = rng.permutation(group_of)
    parts = {
        "qweight": words(codes.T, bits).T,
        "qzeros": words(zeros - less, bits),
        "scales": scales,
        "g_idx": group_of.astype(np.int32),
    }
    return parts, meant(codes, zeros, scales, group_of)


def compressed_tensors(
    rng: Any,
    inputs: int,
    outputs: int,
    group_size: int,
    bits: int = 4,
    symmetric: bool = True,
    moved: bool = False,
) -> Written:
    size, middle = inputs if group_size == -1 else group_size, 1 << bits - 1
    codes = rng.integers(-middle, middle, (inputs, outputs))
    zeros = np.zeros((inputs // size, outputs), np.int64)
    scales, group_of = drawn(rng, outputs, inputs // size), np.arange(inputs) // size
    parts = {
        "weight_packed": words(codes.T + middle, bits),
        "weight_scale": scales.T,
        "weight_shape": np.array([outputs, inputs]),
    }
    if not symmetric:
        zeros = rng.integers(-middle, middle, zeros.shape)
        parts["weight_zero_point"] = words(zeros + middle, bits).T
    if moved:
        group_of = rng.permutation(group_of)
        parts["weight_g_idx"] = group_of.astype(np.int32)
    return parts, meant(codes, zeros, scales, group_of)


def replace_matrices(
    folder: Path, config: dict[str, Any], write: Callable[[Any, int, int], Written]
) -> dict[str, Any]:
    """Quantise the projections of the layers of the checkpoint in `folder`; head and tower stay.

    Returns the weights, float64 by parameter.
    """
    file, rng = folder / "model.safetensors", np.random.default_rng(0)
    tensors, weights = safetensors.torch.load_file(file), {}
    for name in sorted(tensors):
        language = "vision" not in name and "projector" not in name
        if language and ".layers." in name and name.endswith("proj.weight"):
            outputs, inputs = tensors.pop(name).shape
            parts, weights[name] = write(rng, inputs, outputs)
            for part, array in parts.items():
                module = name.removesuffix(".weight")
                tensors[f"{module}.{part}"] = torch.from_numpy(np.ascontiguousarray(array))
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values["quantization_config"] = config
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return weights
