"""The tensors of a GGUF file, dequantised and laid out as Hugging Face's model has them."""

from __future__ import annotations

import functools
import re
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

ROPE_FREQS = "rope_freqs.weight"
SHORT_FACTORS, LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"
_LAYER = re.compile(r"blk\.(\d+)\.([\w.]+)\.(weight|bias)")
_ROWS = -2
"""The axis along which parts of a parameter are joined."""


def fill(model: Any, file: GgufFile, architecture: Architecture) -> list[WithoutEffect]:
    """Give `model`, float32, the file's weights, one tensor at a time.

    Returns what is without effect; raises UnsupportedModel naming tensors that are missing,
    misshapen, in a quantisation that cannot be undone, or have no place.
    """
    account = Account("tensors of the file", file.tensors, way_out=WAY_OUT)
    parameters = dict(model.named_parameters())
    places = check(parameters, file, architecture)
    heads = _heads(model.config)
    with torch.no_grad():
        for name, parameter in parameters.items():
            sources = places.get(name)
            if sources is None:
                parameter.zero_()  # a bias that the file leaves out
                continue
            parts = [dequantise(account.take(source)) for source in sources]
            value = parts[0] if len(parts) == 1 else np.concatenate(parts, _ROWS)
            if permuted := _permuted_heads(sources[0], architecture, heads):
                value = interleaved_to_halves(value, permuted)
            if architecture.norms_with_one and name.endswith("norm.weight"):
                value = value - np.float32(1)
            parameter.copy_(torch.from_numpy(value).reshape(parameter.shape))
    if ROPE_FREQS in file.tensors:
        _scale_rotary(model, dequantise(account.take(ROPE_FREQS)), file)
    account.take_all(_factors(architecture))
    return account.close()


def check(
    parameters: dict[str, torch.Tensor], file: GgufFile, architecture: Architecture
) -> dict[str, list[str]]:
    """Parameter -> its tensors in the file, parts of it in their order; on any device.

    Raises UnsupportedModel as `fill` does, before anything is dequantised.
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


def published(model: Any, file: GgufFile, architecture: Architecture) -> dict[str, Published]:
    """The matrices of `model`, which `fill` filled, as the file has them."""
    parameters = dict(model.named_parameters())
    heads, found = _heads(model.config), {}
    for name, sources in check(parameters, file, architecture).items():
        if name not in parameters or parameters[name].dim() != 2 or len(sources) > 1:
            continue
        tensor = file.tensors[sources[0]]
        permuted = _permuted_heads(sources[0], architecture, heads)
        kind = tensor.tensor_type.name
        read = functools.partial(_codes, tensor, permuted) if kind in KINDS else None
        found[name] = Published(kind, read)
    return found


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
        value: Floats = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
        value = value.reshape(_shape(tensor))
        # Plain floats are still the file's own, mapped for reading.
        return np.ascontiguousarray(value) if value.flags.writeable else value.copy()


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
