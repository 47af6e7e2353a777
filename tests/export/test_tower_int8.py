"""A tower that multiplies in int8: what is written, what the gate says, and where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

pytest.importorskip("torch", reason="exporting needs torch")

import tightrope as tr
from tightrope.bundle import Bundle, TowerInt8
from tightrope.errors import BackendError, UnsupportedModel
from tightrope.export import tower_int8
from tightrope.export.graphs.passes import eight_bit
from tightrope.export.graphs.passes.linear import store_transposed
from tightrope.interface.names import GraphName
from tightrope.interface.onnx import IR_VERSION, OPSET
from tightrope.jetson.probe import int8_products, read_cpu_flags
from tightrope.plugins.builder import OpBuilder
from tightrope.runtime.backends import create_backend

Find = Callable[[str], Path]
Export = Callable[..., Any]
FLAGS = "tightrope.export.recipe.read_cpu_flags"
CAPABLE = int8_products(read_cpu_flags()) is not None
needs_int8 = pytest.mark.skipif(not CAPABLE, reason="this processor has no products of int8")


@pytest.fixture
def export(exported: Export) -> Export:
    """`export(checkpoint, folder, tower_precision="int8")`: a summary; likes are traced once."""
    usual = {"precision": "fp16", "prefill_chunk": 32, "selectors": ("divprune",)}
    return lambda source, target, **config: exported(source, target, **{**usual, **config})


def kinds(bundle: Path) -> list[str]:
    graph = ir.load(bundle / GraphName("host", "vision").file).graph
    return [node.op_type for node in graph.all_nodes()]


@needs_int8
def test_products_and_their_biases_are_one_node_close_to_float32() -> None:
    weight = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([6, 64]))
    bias = ir.Value(name="b", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([6]))
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", "S", 64]))
    op = OpBuilder("toy")
    y = op.Add(op.MatMul(x, op.Transpose(weight, perm=[1, 0])), bias)
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], [y], nodes=op.nodes, initializers=[weight, bias], name="toy")
    graph.opset_imports[""] = OPSET
    model = ir.Model(graph, ir_version=IR_VERSION)
    store_transposed(model)
    eight_bit.to_int8(model)
    assert [node.op_type for node in model.graph] == ["DynamicQuantizeMatMul"]
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(64, 6)).astype(np.float32) * np.geomspace(0.1, 10, 6)
    added = rng.normal(size=6).astype(np.float32)
    scale = (np.abs(plain).max(0) / 127).astype(np.float32)
    values = {"w.int8": np.rint(plain / scale).astype(np.int8), "w.int8_scale": scale, "b": added}
    for name, value in values.items():
        model.graph.initializers[name].const_value = ir.Tensor(value)
    model.graph.initializers.pop("w.transposed")
    model.graph.initializers.pop("w")
    text = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])
    given = rng.normal(size=(2, 3, 64)).astype(np.float32)
    (got,) = session.run(None, {"x": given})
    wanted = given @ plain + added
    # By output: the widest does not round the narrowest away.
    error = np.abs(got - wanted).reshape(-1, 6).max(0) / np.abs(wanted).reshape(-1, 6).max(0)
    assert error.max() < 0.03


@needs_int8
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_over_rows_alone_is_turned_too(bias: bool) -> None:
    """torch writes a layer over [rows,K] as one Gemm: all of those that read patches packed."""
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(64, 6)).astype(np.float32)
    shapes = {"w": [6, 64], "b": [6], "x": ["S", 64]}
    weight, added, x = (
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        for name, shape in shapes.items()
    )
    op = OpBuilder("toy")
    y = op.Gemm(x, weight, *([added] if bias else []), transB=1)
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    stored = [weight, added] if bias else [weight]
    graph = ir.Graph([x], [y], nodes=op.nodes, initializers=stored, name="toy")
    graph.opset_imports[""] = OPSET
    model = ir.Model(graph, ir_version=IR_VERSION)
    assert eight_bit.to_int8(model) == 1
    scale = (np.abs(plain).max(0) / 127).astype(np.float32)
    values = {"w.int8": np.rint(plain / scale).astype(np.int8), "w.int8_scale": scale}
    if bias:
        values["b"] = np.arange(6, dtype=np.float32)
    for name, value in values.items():
        model.graph.initializers[name].const_value = ir.Tensor(value)
    model.graph.initializers.pop("w")
    text = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])
    given = rng.normal(size=(5, 64)).astype(np.float32)
    (got,) = session.run(None, {"x": given})
    wanted = given @ plain + values.get("b", 0)
    assert np.abs(got - wanted).max() / np.abs(wanted).max() < 0.03


@needs_int8
def test_a_tower_over_packed_patches_is_turned(
    checkpoint: Find, export: Export, tmp_path: Path
) -> None:
    summary = export(
        checkpoint("qwen3_vl"), tmp_path / "a.bundle", tower_precision="int8", resolutions=(64,)
    )
    assert summary.tower_int8 is not None and summary.tower_int8.embeds > 0
    assert kinds(tmp_path / "a.bundle").count("DynamicQuantizeMatMul") > 4
    # The patches' own product reads a convolution's weight through a view, and is left.
    assert kinds(tmp_path / "a.bundle").count("Gemm") <= 1


def test_a_tower_without_a_product_to_turn_is_not_called_int8(
    checkpoint: Find, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tightrope.export.graphs.derive.to_int8", lambda graph: 0)
    monkeypatch.setattr(FLAGS, lambda: frozenset({"avx512_vnni"}))
    summary = export(checkpoint("llava"), tmp_path / "a.bundle", tower_precision="auto")
    assert summary.tower_int8 is None
    assert any("in int8 it has no product to turn" in note for note in summary.notes)


@needs_int8
def test_the_reference_models_tower_is_taken_in_int8_and_sees_the_same(
    checkpoint: Find, export: Export, tmp_path: Path
) -> None:
    options = {"tower_precision": "int8", "selectors": None, "resolutions": (168,)}
    summary = export(checkpoint("reference"), tmp_path / "a.bundle", **options)
    figures = summary.tower_int8
    assert figures is not None and 0 < figures.embeds <= tower_int8.MOST_DIFFERENCE
    assert set(figures.agreement) == set(summary.selectors)
    assert min(figures.agreement.values()) >= tower_int8.LEAST_AGREEMENT
    assert summary.parity.int8_tower is not None and 0 < summary.parity.int8_tower < 0.2
    found = kinds(tmp_path / "a.bundle")
    assert "DynamicQuantizeMatMul" in found
    manifest = Bundle.open(tmp_path / "a.bundle", verify=True).manifest
    assert manifest.tower_int8 == figures
    assert any("int8 by output" in how for how in manifest.weights["tower"].stored)
    assert not any("int8" in name for name in manifest.files)
    picture = np.full((64, 64, 3), 90, np.uint8)
    answer = tr.load(tmp_path / "a.bundle", live=False).generate("?", [picture], max_tokens=2)
    assert answer.usage.completion_tokens >= 1


@needs_int8
@pytest.mark.parametrize("asked", ["auto", "int8"])
def test_a_tower_that_does_not_bear_int8_stays_float32_or_is_refused_with_the_figure(
    asked: str, checkpoint: Find, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tower_int8, "MOST_DIFFERENCE", 1e-7)
    target = tmp_path / "a.bundle"
    if asked == "int8":
        with pytest.raises(UnsupportedModel, match=r"differ by .*%.*--tower-precision auto"):
            export(checkpoint("llava"), target, tower_precision=asked)
        assert not target.exists()
        return
    summary = export(checkpoint("llava"), target, tower_precision=asked)
    assert summary.tower_int8 is None
    assert any("multiplies in float32: in int8 its visual" in note for note in summary.notes)
    assert "DynamicQuantizeMatMul" not in kinds(target)
    again = export(checkpoint("llava"), tmp_path / "b.bundle", tower_precision="fp32")
    assert again.total_bytes == pytest.approx(summary.total_bytes, abs=200)


def test_the_gate_names_the_selector_whose_choice_changes() -> None:
    good = TowerInt8(embeds=0.01, agreement={"divprune": 0.95, "visionzip": 0.9})
    assert tower_int8._problem(good) is None
    bad = replace(good, agreement={"divprune": 0.95, "visionzip": 0.4})
    assert tower_int8._problem(bad) == "visionzip keeps 40% of the same tokens, 50% is asked for"
    spoiled = tower_int8._problem(TowerInt8(embeds=float("nan"), agreement={}))
    assert spoiled is not None and "differ by nan" in spoiled


@pytest.mark.parametrize("asked", ["auto", "int8"])
def test_a_processor_without_the_instructions_is_named(
    asked: str, checkpoint: Find, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FLAGS, lambda: frozenset({"avx2"}))
    if asked == "int8":
        with pytest.raises(UnsupportedModel, match=r"none of avx512_vnni, avx_vnni, asimddp"):
            export(checkpoint("llava"), tmp_path / "a.bundle", tower_precision=asked)
        return
    summary = export(checkpoint("llava"), tmp_path / "a.bundle", tower_precision=asked)
    assert summary.tower_int8 is None
    assert any("none of avx512_vnni" in note for note in summary.notes)


def test_a_text_model_has_no_tower_to_multiply_in_int8(
    checkpoint: Find, export: Export, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModel, match="no tower"):
        export(checkpoint("llama"), tmp_path / "a.bundle", tower_precision="int8", selectors=None)


def test_a_bundle_whose_tower_is_in_int8_is_refused_where_sums_would_be_wrong(
    bundle: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(bundle("llava"))
    rounded = replace(opened.manifest, tower_int8=TowerInt8(embeds=0.01, agreement={}))
    monkeypatch.setattr(
        "tightrope.runtime.backends.onnxruntime.read_cpu_flags", lambda: frozenset({"avx2"})
    )
    with pytest.raises(BackendError, match=r"none of avx512_vnni.*--tower-precision fp32"):
        create_backend("onnxruntime", replace(opened, manifest=rounded))
