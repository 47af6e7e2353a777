"""Bytes of weights that a step of a peer reads, and how many numbers they stand for.

A matrix that is both embedding and head counts once: a step multiplies with all of it, and looks
one row up.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

TOWERS = ("vision_tower.", "multi_modal_projector.", "visual.")
"""Names of a checkpoint's tensors that are no part of its language model."""


def count(source: Path) -> int:
    """Weights of a checkpoint's language model, or of a GGUF file."""
    if source.suffix == ".gguf":
        return sum(int(tensor.n_elements) for tensor in _tensors(source))
    return sum(
        prod(entry["shape"])
        for file in source.glob("*.safetensors")
        for name, entry in _header(file).items()
        if name != "__metadata__" and not any(tower in name for tower in TOWERS)
    )


def in_gguf(model: Path) -> int:
    """Bytes of a GGUF file's tensors."""
    return sum(int(tensor.n_bytes) for tensor in _tensors(model))


def in_files(*names: str) -> Callable[[Path], int]:
    """Bytes of those files of a folder that are there."""
    return lambda model: sum(file.stat().st_size for name in names for file in model.glob(name))


def in_graph(name: str) -> Callable[[Path], int]:
    """Bytes of the weights that an ONNX graph of a folder reads, each once, wherever they lie."""
    return lambda model: _read_by(model / name)


def _read_by(file: Path) -> int:
    import onnx

    sizes: dict[tuple[str, str], int] = {}
    for tensor in _initializers(onnx.load(file, load_external_data=False).graph):
        stored = {entry.key: entry.value for entry in tensor.external_data}
        if stored and not tensor.name.endswith(("cos_cache", "sin_cache")):
            sizes[stored["location"], stored["offset"]] = int(stored["length"])
    return sum(sizes.values())


def _initializers(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _initializers(attribute.g)


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    return header


def _tensors(file: Path) -> Any:
    import gguf

    return gguf.GGUFReader(file).tensors
