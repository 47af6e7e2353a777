"""The weight files of a Hugging Face folder, checked before anything of them is loaded."""

from __future__ import annotations

import functools
import itertools
import json
import math
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch

from tightrope.checks import shown
from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import listed
from tightrope.export.foreign import reading

_SAFETENSORS, _PICKLED = "model.safetensors", "pytorch_model.bin"
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_OTHER_BYTES = {
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_LONGEST_HEADER = 100_000_000  # the format's own limit
AGAIN = "get the checkpoint again"


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as a file has it."""

    dtype: str
    """By safetensors' name of it."""
    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]
    """Mapped from the file, where its format can be."""


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor by name, as the files of `folder` have them; nothing is loaded.

    Raises UnsupportedModel naming file and tensor for what is damaged or holds no tensors.
    """
    for name, read in ((_SAFETENSORS, _safetensors), (_PICKLED, _pickled)):
        files = _files(folder, name)
        if files:
            stored: dict[str, Stored] = {}
            for file in files:
                found = read(file)
                if twice := [tensor for tensor in found if tensor in stored]:
                    raise UnsupportedModel(
                        f"{file} holds {listed(twice)}, which another file holds too; {AGAIN}"
                    )
                stored |= found
            return stored
    raise UnsupportedModel(
        f"{folder} cannot be loaded: it has neither {_SAFETENSORS} nor {_PICKLED}; {AGAIN}"
    )


def safetensors_files(folder: Path) -> list[Path]:
    """The `.safetensors` files of `folder`; raises UnsupportedModel where there are none."""
    files = _files(folder, _SAFETENSORS)
    if not files:
        raise UnsupportedModel(
            f"{folder} has no {_SAFETENSORS}: quantised weights are read of no other files; {AGAIN}"
        )
    return files


def _files(folder: Path, name: str) -> list[Path]:
    """The files that are called `name`, or that its index names; transformers' order."""
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    with reading(f"{index} cannot be read"):
        content = json.loads(index.read_text(encoding="utf-8"))
        names = sorted(set(content["weight_map"].values()))
        files = [folder / str(part) for part in names]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UnsupportedModel(f"{index} names {listed(missing)}, which are missing; {AGAIN}")
    return files


def read_tensor(name: str, file: Path) -> torch.Tensor:
    """A tensor of a `.safetensors` file, mapped; the file is closed when the tensor is gone."""
    with reading(f"{file} cannot be loaded"), safetensors.safe_open(file, "pt") as tensors:
        value: torch.Tensor = tensors.get_tensor(name)
        return value


def _safetensors(file: Path) -> dict[str, Stored]:
    size = file.stat().st_size
    with reading(f"{file} cannot be loaded"), file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise UnsupportedModel(
                f"{file} cannot be loaded: its header claims {length} bytes, the file has {size}; "
                f"{AGAIN}"
            )
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        spans = []
        for name, entry in header.items():
            num_bytes = _tensor_bytes(file, name, entry)
            start, end = entry["data_offsets"]
            if start > end or end - start != num_bytes:
                raise UnsupportedModel(
                    f"{file} cannot be loaded: {name} lies from {start} to {end}, its shape takes "
                    f"{num_bytes} bytes; {AGAIN}"
                )
            spans.append((start, end, name))
    _check_spans(file, sorted(spans), size - 8 - length)
    return {
        name: Stored(
            entry["dtype"], tuple(entry["shape"]), functools.partial(read_tensor, name, file)
        )
        for name, entry in header.items()
    }


def _tensor_bytes(file: Path, name: str, entry: dict[str, Any]) -> int:
    kind, shape = entry["dtype"], entry["shape"]
    if kind not in _BYTES and kind not in _OTHER_BYTES:
        raise UnsupportedModel(
            f"{file} cannot be loaded: {name} has dtype {shown(kind)}; read here: "
            f"{', '.join(_BYTES)}; take a checkpoint that is not quantised"
        )
    if not all(isinstance(length, int) and length >= 0 for length in shape):
        raise UnsupportedModel(f"{file} cannot be loaded: {name} has shape {shown(shape)}; {AGAIN}")
    return int(math.prod(shape)) * (_BYTES | _OTHER_BYTES)[kind]


def _check_spans(file: Path, spans: list[tuple[int, int, str]], room: int) -> None:
    for (_, end, before), (start, _, name) in itertools.pairwise(spans):
        if start != end:
            how = "overlap" if start < end else "leave a gap"
            raise UnsupportedModel(
                f"{file} cannot be loaded: the data of {before} and {name} {how}; {AGAIN}"
            )
    first, last = (spans[0][0], spans[-1][1]) if spans else (0, 0)
    if first != 0 or last != room:
        raise UnsupportedModel(
            f"{file} cannot be loaded: its tensors lie from {first} to {last}, the data has {room} "
            f"bytes; {AGAIN}"
        )


def _pickled(file: Path) -> dict[str, Stored]:
    way_out = "a .bin file may hold tensors alone; take the safetensors files"
    with reading(f"{file} cannot be loaded", way_out), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
        if not isinstance(content, dict):
            raise UnsupportedModel(
                f"{file} cannot be loaded: it holds a {type(content).__name__}; {way_out}"
            )
        others = [str(name) for name, value in content.items() if not torch.is_tensor(value)]
        if others:
            raise UnsupportedModel(
                f"{file} cannot be loaded: it holds what is no tensor: {listed(others)}; {way_out}"
            )
        return {
            name: Stored(_dtype(value), tuple(value.shape), value.detach)
            for name, value in content.items()
        }


def _dtype(value: torch.Tensor) -> str:
    """A torch dtype by safetensors' name of it, where that is a float that is read here."""
    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16"}
    names[torch.bfloat16] = "BF16"
    return names.get(value.dtype, str(value.dtype))


def is_plain(dtype: str) -> bool:
    """Whether a dtype is one that weights are computed with."""
    return dtype in _BYTES
