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
from tightrope.export.weight_files import Stored, read_tensor, safetensors_files


@dataclass(frozen=True, slots=True)
class QuantisedFolder:
    """Where each tensor of the folder lies, and which belong to one matrix."""

    method: Method
    read: Read
    floats: Mapping[str, Path]
    """Tensors that are read as they are."""
    matrices: Mapping[str, Mapping[str, tuple[str, Path]]]
    """Module -> part -> tensor and its file."""

    def stored(self, tensors: Mapping[str, Stored]) -> dict[str, Stored]:
        """Every tensor as if matrices were float32; tensors: as the files have them."""
        plain = {name: tensors[name] for name in self.floats}
        for module in self.matrices:
            with reading(f"{module} cannot be read", AGAIN):
                shape = self.method.shape(self._parts(module))
            read = functools.partial(self._weight, module)
            plain[f"{module}.weight"] = Stored("F32", shape, read)
        return plain

    def coded(self, module: str) -> Coded:
        """The matrix of a module; raises UnsupportedModel where its parts do not fit together."""
        return self.read(module, self._parts(module))

    def published(self, tensor: str) -> Published | None:
        """A tensor of `stored` as it is stored; None for what is no matrix in codes."""
        module = tensor.removesuffix(".weight")
        if tensor == module or module not in self.matrices:
            return None
        return Published(self.method.name.upper(), functools.partial(self.coded, module))

    def _parts(self, module: str) -> dict[str, Array]:
        return {part: _array(*where) for part, where in self.matrices[module].items()}

    def _weight(self, module: str) -> torch.Tensor:
        return torch.from_numpy(self.coded(module).weight())


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


def _array(name: str, file: Path) -> Array:
    value = read_tensor(name, file)
    # bfloat16 has no counterpart in numpy.
    array: Any = value.float().numpy() if value.is_floating_point() else value.numpy()
    return np.asarray(array)
