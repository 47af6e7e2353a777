"""A Hugging Face folder whose matrices are in codes: its tensors, the codes read one by one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch

from tightrope.arrays import Array
from tightrope.errors import UnsupportedModel
from tightrope.export.coded import AGAIN, Coded, Published
from tightrope.export.foreign import reading
from tightrope.export.quantised.method import Method, Read
from tightrope.export.weight_files import safetensors_files


@dataclass(frozen=True, slots=True)
class QuantisedFolder:
    """Where each tensor of the folder lies, and which belong to one matrix."""

    method: Method
    read: Read
    floats: Mapping[str, Path]
    """Tensors that are read as they are."""
    matrices: Mapping[str, Mapping[str, tuple[str, Path]]]
    """Module -> part -> tensor and its file."""

    def stored(self, dtypes: Mapping[str, str]) -> dict[str, str]:
        """Every tensor's dtype, as if matrices were floats; dtypes: as the files have them."""
        plain = {name: dtypes[name] for name in self.floats}
        return plain | {f"{module}.weight": "F32" for module in self.matrices}

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of the folder's weights by name, matrices in float32."""
        values = {name: _tensor(name, file) for name, file in self.floats.items()}
        for module in self.matrices:
            values[f"{module}.weight"] = torch.from_numpy(self.coded(module).weight())
        return values

    def coded(self, module: str) -> Coded:
        """The matrix of a module; raises UnsupportedModel where its parts do not fit together."""
        parts = {part: _array(*where) for part, where in self.matrices[module].items()}
        return self.read(module, parts)

    def published(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, Published]:
        """The matrices by the name of their parameter, which may be another than in the folder."""
        found = {}
        by_content = {_content(value): name for name, value in parameters.items()}
        for module in self.matrices:
            name = f"{module}.weight"
            if name not in parameters:
                name = by_content[_content(torch.from_numpy(self.coded(module).weight()))]
            read = functools.partial(self.coded, module)
            found[name] = Published(self.method.name.upper(), read)
        return found


def open_folder(folder: Path, method: Method, read: Read) -> QuantisedFolder:
    """Raises UnsupportedModel where no tensors are in codes, or parts of a matrix are missing."""
    where: dict[str, Path] = {}
    for file in safetensors_files(folder):
        with reading(f"{file} cannot be loaded"), safetensors.safe_open(file, "pt") as tensors:
            where |= dict.fromkeys(tensors.keys(), file)
    marker = f".{method.parts[0]}"
    modules = [name.removesuffix(marker) for name in where if name.endswith(marker)]
    if not modules:
        raise UnsupportedModel(
            f"{folder} says that it is quantised by {method.name}, but has no tensor *{marker}; "
            f"{AGAIN}"
        )
    matrices = {}
    for module in modules:
        parts = {
            part: (f"{module}.{part}", where.pop(f"{module}.{part}"))
            for part in method.parts
            if f"{module}.{part}" in where
        }
        for part in method.parts:
            if part not in parts and part not in method.optional:
                raise UnsupportedModel(f"{module} has no {part}; {AGAIN}")
        matrices[module] = parts
    return QuantisedFolder(method, read, where, matrices)


def _tensor(name: str, file: Path) -> torch.Tensor:
    with reading(f"{file} cannot be loaded"), safetensors.safe_open(file, "pt") as tensors:
        value: torch.Tensor = tensors.get_tensor(name)
        return value


def _array(name: str, file: Path) -> Array:
    value = _tensor(name, file)
    # bfloat16 has no counterpart in numpy.
    array: Any = value.float().numpy() if value.is_floating_point() else value.numpy()
    return np.asarray(array)


def _content(value: torch.Tensor) -> tuple[Any, ...]:
    """What tells matrices of one shape apart."""
    row = value.reshape(-1)[: 1 << 10]
    return tuple(value.shape), row.float().numpy().tobytes()
