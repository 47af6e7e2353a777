"""What methods of quantising have in common: packed words, groups of inputs, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tightrope.arrays import Array, Indices
from tightrope.checks import shown
from tightrope.errors import UnsupportedModel
from tightrope.export.coded import AGAIN, Coded

Parts = Mapping[str, Array]
"""Tensors of one matrix by what follows the module's name."""
Read = Callable[[str, Parts], Coded]
WORD_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way of quantising, as checkpoints name it."""

    name: str
    """`quant_method` of the checkpoint's config."""
    parts: tuple[str, ...]
    """What a matrix's tensors are called behind its module; the first one marks a matrix."""
    optional: tuple[str, ...]
    """Those of `parts` that may be missing."""
    shape: Callable[[Parts], tuple[int, int]]
    """Outputs and inputs of a matrix, by the shapes of its parts."""
    reader: Callable[[Mapping[str, Any]], Read]
    """Of a `quantization_config`; raises UnsupportedModel for what of it is not known."""


def take(config: Mapping[str, Any], key: str, accepted: Sequence[Any], default: Any = None) -> Any:
    """The value of a key of `quantization_config`; raises UnsupportedModel for another."""
    value = config.get(key, default)
    if value not in accepted or isinstance(value, bool) is not isinstance(accepted[0], bool):
        raise UnsupportedModel(
            f"the checkpoint's quantisation has {key} {shown(value)}; read here: "
            f"{', '.join(map(str, accepted))}"
        )
    return value


def group_size_of(config: Mapping[str, Any]) -> int:
    """Inputs that share a scale, -1 for all; raises UnsupportedModel for what is no number."""
    value = config.get("group_size")
    if type(value) is not int or (value != -1 and value < 16):
        raise UnsupportedModel(
            f"the checkpoint's quantisation has group_size {shown(value)}; read here: -1, or 16 "
            "and more"
        )
    return value


def unpacked(words: Array, bits: int) -> Array:
    """Codes int16 [R, C * 32 / bits] of int32 words [R,C], the lowest bits first."""
    parts = np.ascontiguousarray(words.astype("<i4")).view(np.uint8)
    if bits == 4:
        parts = np.stack([parts & 15, parts >> 4], -1)
    codes: Array = parts.reshape(len(words), -1).astype(np.int16)
    return codes


def check_part(name: str, parts: Parts, part: str, shape: Sequence[int]) -> Array:
    """A part of matrix `name`; raises UnsupportedModel where its shape is another."""
    array = parts[part]
    if list(array.shape) != list(shape):
        raise UnsupportedModel(
            f"{name}.{part} has shape {list(array.shape)} instead of {list(shape)}; {AGAIN}"
        )
    return array


def check_scales(name: str, scales: Array) -> Array:
    """float32 scales; raises UnsupportedModel where one is zero or no number."""
    values = scales.astype(np.float32)
    if not np.isfinite(values).all() or not values.all():
        raise UnsupportedModel(f"{name} has scales that are zero, NaN or infinite; {AGAIN}")
    return values


def groups_of(name: str, inputs: int, group_size: int) -> int:
    """How many groups `inputs` have; raises UnsupportedModel where the last one is not full."""
    size = inputs if group_size == -1 else group_size
    if inputs % size:
        raise UnsupportedModel(f"{name} has {inputs} inputs, no whole number of groups of {size}")
    return inputs // size


def in_groups(name: str, group_of: Array, groups: int) -> Indices | None:
    """The order of inputs in which groups lie side by side, None where they do already.

    group_of: the group of each input. Raises UnsupportedModel where groups are not alike.
    """
    inputs = len(group_of)
    known = group_of.min(initial=0) >= 0
    counts: list[int] = np.bincount(group_of, minlength=groups).tolist() if known else []
    if len(counts) != groups or any(count != inputs // groups for count in counts):
        raise UnsupportedModel(
            f"{name} has groups of unequal size, or numbers of groups that there are not; {AGAIN}"
        )
    order: Indices = np.argsort(group_of, kind="stable").astype(np.int64)
    return None if np.array_equal(order, np.arange(inputs)) else order
