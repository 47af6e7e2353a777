"""A bundle whose weights were changed and whose hashes say nothing of it, for self-tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx

from tightrope.bundle import MANIFEST, sha256_of

WEIGHTS = "graphs/weights.data"


def falsified(bundle: Path, folder: Path, graph: str, other: str = "") -> Path:
    """A copy of `bundle` in which one matrix that `graph` reads, and `other` does not, is another.

    graph, other: names such as host.vision.
    """
    shutil.copytree(bundle, folder)
    spared = set() if not other else set(_places(folder / "graphs" / f"{other}.onnx"))
    places = [
        place for place in _places(folder / "graphs" / f"{graph}.onnx") if place not in spared
    ]
    offset, length, wide = max(places, key=lambda place: place[1])
    weights = np.memmap(folder / WEIGHTS, np.uint8, "r+")
    part = weights[offset : offset + length].view(np.float32 if wide else np.float16)
    part[:] = np.roll(part, 1)
    weights.flush()
    described = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    described["files"][WEIGHTS]["sha256"] = sha256_of(folder / WEIGHTS)
    (folder / MANIFEST).write_text(json.dumps(described), encoding="utf-8")
    return folder


def _places(file: Path) -> list[tuple[int, int, bool]]:
    """Offset, bytes and whether it is float32 of each float tensor that a graph has outside."""
    found = []
    for tensor in onnx.load(file, load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            wide = tensor.data_type == onnx.TensorProto.FLOAT
            found.append((int(entries["offset"]), int(entries["length"]), wide))
    return found
