"""Graphs walked through: how much memory opening and running them takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.export.walking import standard
from tightrope.interface.names import GraphName
from tightrope.interface.onnx import IR_VERSION, OPSET
from tightrope.profiles.peak_memory import peak_memory_bytes, reset_peak_memory

WIDTH, LAYERS = 1024, 32
MB = 1e6


def chain(file: Path) -> None:
    """Products of float16 one behind the other, their weights beside the file."""
    rng, kind = np.random.default_rng(0), onnx.TensorProto.FLOAT16
    weight = rng.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float16)
    nodes, weights = [], []
    for layer in range(LAYERS):
        weights.append(onnx.numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(onnx.helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"]))
    ends = [
        onnx.helper.make_tensor_value_info(name, kind, ["S", WIDTH])
        for name in ("x0", f"x{LAYERS}")
    ]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    file.parent.mkdir(exist_ok=True)
    onnx.save(model, file, save_as_external_data=True, location=f"{file.stem}.data")


def test_weights_of_float16_are_widened_one_by_one(tmp_path: Path) -> None:
    for role in ("prefill", "decode"):
        chain(tmp_path / GraphName("standard", role).file)
    if not reset_peak_memory():
        pytest.skip("the system does not let its peak be set back")
    before: Any = peak_memory_bytes()
    graphs = standard(tmp_path)
    (got,) = graphs.prefill.run(None, {"x0": np.ones((3, WIDTH), np.float16)})
    peak: Any = peak_memory_bytes()
    assert np.isfinite(got).all()
    mapped, widened = (WIDTH * WIDTH * LAYERS * size / MB for size in (2, 4))
    assert (peak - before) / MB < mapped + widened / 3
