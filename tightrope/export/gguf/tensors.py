"""The tensors of a GGUF file, dequantised and laid out as Hugging Face's model has them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import gguf
import numpy as np
import torch

from tightrope.arrays import Array, Floats
from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import Account, WithoutEffect, listed
from tightrope.export.coded import Coded, Published
from tightrope.export.foreign import reading
from tightrope.export.gguf.architectures import Architecture
from tightrope.export.gguf.codes import KINDS, coded_of
from tightrope.export.gguf.file import GgufFile
from tightrope.export.gguf.keys import WAY_OUT
from tightrope.export.late import LateModel, Parameters, rest

ROPE_FREQS = "rope_freqs.weight"
SHORT_FACTORS, LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"
_LAYER = re.compile(r"blk\.(\d+)\.([\w.]+)\.(weight|bias)")
_ROWS = -2
"""The axis along which parts of a parameter are joined."""
_AT_ONCE = 1 << 22
"""Bytes of a tensor that are dequantised in one go."""


def late_model(
    model: Any, file: GgufFile, architecture: Architecture
) -> tuple[LateModel, list[WithoutEffect]]:
    """`model`, float32 and empty, with the file's weights; what of the file is without effect.

    Raises UnsupportedModel naming tensors that are missing, misshapen, in a quantisation that
    cannot be undone, or have no place.
    """
    account = Account("tensors of the file", file.tensors, way_out=WAY_OUT)
    first = dict(model.named_parameters())
    places, heads = check(first, file, architecture), _heads(model.config)
    names = {id(value): name for name, value in first.items()}
    sources: dict[str, Callable[[], torch.Tensor]] = {}
    published: dict[str, Published] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        own = names[id(value)]
        parts = places.get(own)
        if parts is None:  # a bias that the file leaves out
            sources[name] = functools.partial(torch.zeros, value.shape)
            continue
        account.take_all(parts)
        permuted = _permuted_heads(parts[0], architecture, heads)
        found = [file.tensors[part] for part in parts]
        less = architecture.norms_with_one and own.endswith("norm.weight")
        sources[name] = functools.partial(_value, found, permuted, less, value.shape)
        if value.dim() == 2 and len(found) == 1:
            published[name] = _published(found[0], permuted)
    if ROPE_FREQS in file.tensors:
        _scale_rotary(model, dequantise(account.take(ROPE_FREQS)), file)
    sources |= {name: value.detach for name, value in model.named_buffers()}
    account.take_all(_factors(architecture))
    parameters = Parameters(sources)
    rest(model, parameters)
    return LateModel(model, parameters, published), account.close()


def _value(tensors: Sequence[Any], permuted: int, less: bool, shape: torch.Size) -> torch.Tensor:
    """A parameter of one tensor or more.

    permuted: heads whose rows are put back, 0 for none. less: whether it is stored with 1 added.
    """
    parts = [dequantise(tensor) for tensor in tensors]
    value = parts[0] if len(parts) == 1 else np.concatenate(parts, _ROWS)
    if permuted:
        value = interleaved_to_halves(value, permuted)
    return torch.from_numpy(value - np.float32(1) if less else value).reshape(shape)


def check(
    parameters: dict[str, torch.Tensor], file: GgufFile, architecture: Architecture
) -> dict[str, list[str]]:
    """Parameter -> its tensors in the file, parts of it in their order; on any device.

    Raises UnsupportedModel as `late_model` does, before anything is dequantised.
    """
    missing, misshapen = [], []
    places = _places(file, architecture)
    for name, parameter in parameters.items():
        if name not in places:
            if not name.endswith(".bias"):
                missing.append(name)
            continue
        shapes = [_shape(file.tensors[part]) for part in places[name]]
        found = shapes[0]
        if len(shapes) > 1:
            found[_ROWS] = sum(shape[_ROWS] for shape in shapes)
        wanted = _stored_shape(name, parameter)
        if found != wanted:
            source = " and ".join(places[name])
            misshapen.append(f"{source} {found} instead of {wanted}")
    for problem, names in (("no tensors for", missing), ("misshapen tensors:", misshapen)):
        if names:
            raise UnsupportedModel(f"{file.path} has {problem} {listed(names)}; {WAY_OUT}")
    left = Account("tensors of the file", file.tensors, way_out=WAY_OUT)
    for name in parameters:
        left.take_all(places.get(name, ()))
    left.take_all([ROPE_FREQS, *_factors(architecture)])
    left.close()
    _check_quantisations(file)
    return places


def _places(file: GgufFile, architecture: Architecture) -> dict[str, list[str]]:
    """Parameter -> its tensors, in the order of the architecture's table."""
    found = {
        place: [name]
        for name in file.tensors
        if (place := place_of(name, architecture)) is not None
    }
    for part, parameter in architecture.experts.items():
        for name in file.tensors:
            layer = _LAYER.fullmatch(name)
            if layer is not None and (layer[2], layer[3]) == (part, "weight"):
                found.setdefault(f"model.layers.{int(layer[1])}.{parameter}", []).append(name)
    return found


def _factors(architecture: Architecture) -> tuple[str, ...]:
    """Tensors that the config has already taken."""
    return (SHORT_FACTORS, LONG_FACTORS) if architecture.partial_rope else ()


def _stored_shape(name: str, parameter: torch.Tensor) -> list[int]:
    """Of a parameter in the file, which leaves out the middle axis [E,1,L] of a convolution."""
    shape = list(parameter.shape)
    return shape[:1] + shape[2:] if name.endswith("conv.conv.weight") else shape


def _shape(tensor: Any) -> list[int]:
    """In numpy's order of axes."""
    return [int(length) for length in reversed(tensor.shape)]


def place_of(name: str, architecture: Architecture) -> str | None:
    """Hugging Face's name of a tensor; None if the architecture has no place for it."""
    if name in architecture.whole:
        return architecture.whole[name]
    layer = _LAYER.fullmatch(name)
    if layer is None or layer[2] not in architecture.layer:
        return None
    return f"model.layers.{int(layer[1])}.{architecture.layer[layer[2]]}.{layer[3]}"


def _check_quantisations(file: GgufFile) -> None:
    known: set[Any] = set()
    for name, tensor in file.tensors.items():
        kind = tensor.tensor_type
        if kind in known:
            continue
        try:
            gguf.dequantize(np.zeros(gguf.GGML_QUANT_SIZES[kind][1], np.uint8), kind)
        except NotImplementedError as error:
            raise UnsupportedModel(
                f"{file.path} has {name} in {kind.name}, which the package gguf cannot "
                "dequantise; take a file of another quantisation"
            ) from error
        known.add(kind)


def _published(tensor: Any, permuted: int) -> Published:
    kind = tensor.tensor_type.name
    read = functools.partial(_codes, tensor, permuted) if kind in KINDS else None
    return Published(kind, read)


def _codes(tensor: Any, permuted: int) -> Coded:
    """permuted: heads whose rows are put back, 0 for none."""
    with reading(f"{tensor.name} cannot be read"):
        rows = np.asarray(tensor.data)
        if permuted:
            rows = interleaved_to_halves(rows, permuted)
        return coded_of(tensor.name, rows, tensor.tensor_type.name)


def _heads(config: Any) -> tuple[int, int]:
    """Of queries, and of keys and values."""
    return config.num_attention_heads, config.num_key_value_heads


def _permuted_heads(source: str, architecture: Architecture, heads: tuple[int, int]) -> int:
    """How many heads of a tensor have interleaved rows, 0 where none."""
    if not _LAYER.fullmatch(source) or source.split(".")[2] not in architecture.permuted:
        return 0
    return heads[".attn_k." in source]


def dequantise(tensor: Any) -> Floats:
    """A `gguf.ReaderTensor` as float32, in numpy's order of axes."""
    with reading(f"{tensor.name} cannot be dequantised"):
        rows = tensor.data.reshape(-1, tensor.data.shape[-1])
        parts = np.array_split(rows, min(len(rows), 1 + rows.nbytes // _AT_ONCE))
        # What the package makes on the way is several times as large as what it gives.
        value: Floats = np.concatenate(
            [gguf.dequantize(part, tensor.tensor_type).astype(np.float32) for part in parts]
        )
        return value.reshape(_shape(tensor))


def interleaved_to_halves(value: Array, heads: int) -> Array:
    """Rows of each head from (0, 0', 1, 1', ...), pairs side by side, to (0, 1, ..., 0', 1', ...).

    llama.cpp rotates neighbours, Hugging Face the two halves of a head.
    """
    pairs = value.shape[0] // heads // 2
    split = value.reshape(heads, pairs, 2, *value.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(value.shape)


def _scale_rotary(model: Any, factors: Floats, file: GgufFile) -> None:
    """`rope_freqs.weight` [D/2]: by what each rotary frequency is divided (Llama 3.1's scaling)."""
    rotary = model.model.rotary_emb
    if factors.shape != tuple(rotary.inv_freq.shape) or not (
        np.isfinite(factors).all() and (factors > 0).all()
    ):
        raise UnsupportedModel(
            f"{file.path} has {ROPE_FREQS} of shape {list(factors.shape)}; accepted: "
            f"{list(rotary.inv_freq.shape)} numbers above 0"
        )
    rotary.inv_freq.copy_(rotary.inv_freq / torch.from_numpy(factors))
    rotary.original_inv_freq.copy_(rotary.inv_freq)
