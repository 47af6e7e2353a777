"""Standard graphs against the operator list of TensorRT 10.3 and in TensorRT for RTX."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tightrope.bundle import FORMAT, MANIFEST, FileEntry, Manifest, Source, Stage, sha256_of
from tightrope.errors import BackendError, UnsupportedModel
from tightrope.export.check import rtx
from tightrope.export.check.operators import check_operators, operators_of
from tightrope.export.check.rtx import check_bundle, check_graph
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.names import GraphName
from tightrope.interface.onnx import (
    FLOAT,
    FLOAT16,
    INT32,
    INT64,
    IR_VERSION,
    OPSET,
    OWN_OPSET,
    element_type,
)
from tightrope.interface.tensors import Dims
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.select_tokens import SCHEMA as SELECT_TOKENS
from tightrope.plugins.select_tokens import body as select_tokens
from tightrope.plugins.slot_attention import SCHEMA as SLOT_ATTENTION
from tightrope.plugins.slot_attention import body as slot_attention

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 8
RANGES = {
    "N": (1, 1, 4),
    "S": (1, 64, 64),
    "C": (1, 128, 256),
    "U0": (0, 128, 256),
    "V": (1, 36, 64),
    "K": (1, 18, 64),
}
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)
Emit = Callable[..., Any]


def value(name: str, dtype: int, axes: Sequence[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType(dtype)), shape=ir.Shape(list(axes)))


def model(
    op: OpBuilder, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], opset: int = OPSET
) -> ir.Model:
    graph = ir.Graph(inputs, outputs, nodes=op.nodes, opset_imports={"": opset}, name="graph")
    return ir.Model(graph, ir_version=IR_VERSION)


def tiny(emit: Emit, dtype: int = FLOAT, gives: int = FLOAT, opset: int = OPSET) -> ir.Model:
    """A graph with input x [N,8] of `dtype`, made by `emit(op, x)`."""
    op, x = OpBuilder(), value("x", dtype, ("N", 8))
    result = emit(op, x)
    result.name, result.type = "y", ir.TensorType(ir.DataType(gives))
    return model(op, [x], [result], opset)


def attention(form: slot_attention.Form, activation: int) -> ir.Model:
    """One SlotAttention by its body, with a window and a soft cap, its axes named for layer 0."""
    single = form == "step"
    fixed: dict[str, int | str] = {"Hq": HEADS, "Hkv": KV_HEADS, "D": HEAD_DIM}
    fixed |= {"C": "C", "U": "C" if single else "U0", "S": 1 if single else "S"}
    inputs = [
        value(
            row.name,
            element_type(row.dtype, activation),
            [fixed.get(str(axis), axis) for axis in row.axes],
        )
        for row in SLOT_ATTENTION.required
    ]
    op = OpBuilder()
    shape = slot_attention.Fixed(HEADS, KV_HEADS, HEAD_DIM, activation, HEAD_DIM**-0.5, 3.0, 9)
    outputs = slot_attention.body(op, inputs, shape, form)
    for output, row in zip(outputs, SLOT_ATTENTION.outputs, strict=True):
        output.name = f"next_{row.name}"
        output.type = ir.TensorType(ir.DataType(element_type(row.dtype, activation)))
    # The budget is compared where something may leave, and nowhere else.
    return model(op, [item for item in inputs if item.uses()], outputs)


def selection() -> ir.Model:
    inputs = [value(r.name, element_type(r.dtype, FLOAT), r.axes) for r in SELECT_TOKENS.inputs]
    op = OpBuilder()
    outputs = select_tokens.body(op, *inputs)
    for number, output in enumerate(outputs):
        output.name, output.type = f"out_{number}", ir.TensorType(ir.DataType.INT64)
    return model(op, inputs, outputs)


def saved(graph: ir.Model, folder: Path, name: str = "graph") -> Path:
    file = folder / f"{name}.onnx"
    ir.save(graph, file)
    return file


BODIES = {
    "general in float32": lambda: attention("general", FLOAT),
    "general in float16": lambda: attention("general", FLOAT16),
    "append in float32": lambda: attention("append", FLOAT),
    "append in float16": lambda: attention("append", FLOAT16),
    "step in float32": lambda: attention("step", FLOAT),
    "step in float16": lambda: attention("step", FLOAT16),
    "SelectTokens": selection,
}


def test_operators_inside_bodies_are_found_with_a_node_each() -> None:
    def emit(op: OpBuilder, x: ir.Value) -> Any:
        (looped,) = op.loop(
            op.value(np.int64(3)), [(x, FLOAT)], lambda inner, _, state: [inner.Tanh(state[0])]
        )
        then, otherwise = OpBuilder("then"), OpBuilder("else")
        condition = op.Less(op.scalar_dim(x, 0), np.int64(2))
        relu, erf = then.Relu(looped), otherwise.Erf(looped)
        return op.branch(condition, then, [relu], otherwise, [erf])[0]

    found = operators_of(tiny(emit))
    assert {"Loop", "If", "Tanh", "Relu", "Erf", "Less"} <= set(found)
    assert all(found.values())
    assert list(found) == sorted(found)


def test_an_operator_outside_the_list_is_refused_with_its_node_and_graph() -> None:
    graph = tiny(lambda op, x: op.Foo(op.BitwiseNot(x), domain="some"), INT32, INT32)
    with pytest.raises(UnsupportedModel) as raised:
        check_operators("standard.decode", graph)
    text = str(raised.value)
    assert "standard.decode" in text
    assert f"BitwiseNot (node {operators_of(graph)['BitwiseNot']})" in text
    assert "some::Foo" in text


def _second_output(op: OpBuilder, x: ir.Value) -> Any:
    y, mean = op.LayerNormalization(x, np.ones(8, np.float32), outputs=2)
    return op.Add(y, mean)


SCALE = np.ones(2, np.float32)
REFUSED = {
    "is not in the list": (lambda op, x: op.Attention(x, x, x), FLOAT),
    "has reduction = 'add'": (
        lambda op, x: op.ScatterElements(x, [[0]], x, axis=0, reduction="add"),
        FLOAT,
    ),
    "has sorted = 0": (lambda op, x: op.TopK(x, [1], outputs=2, sorted=0)[0], FLOAT),
    "computes its input 1": (lambda op, x: op.ReduceSum(x, op.dim(x, 1)), FLOAT),
    "uses output 1": (_second_output, FLOAT),
    "computes on int64": (lambda op, x: op.CumSum(x, np.int64(0)), INT64),
    "computes on bool": (lambda op, x: op.ReduceMax(x, [0]), 9),
    "computes on int32": (lambda op, x: op.Pow(op.Cast(x, to=FLOAT), np.int32(2)), FLOAT),
    "reads it as of 20": (
        lambda op, x: op.GroupNormalization(x, SCALE, SCALE, num_groups=2),
        FLOAT,
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_the_operator_name_does_not_tell_is_refused(reason: str) -> None:
    emit, dtype = REFUSED[reason]
    with pytest.raises(UnsupportedModel, match=reason):
        check_operators("standard.decode", tiny(emit, dtype))


@pytest.mark.parametrize("name", BODIES)
def test_bodies_hold_only_what_the_oldest_parser_has(name: str) -> None:
    check_operators(name, BODIES[name]())


@needs_rtx
@pytest.mark.parametrize("name", BODIES)
def test_bodies_parse_and_build(name: str, tmp_path: Path) -> None:
    result = check_graph(name, saved(BODIES[name](), tmp_path), RANGES)
    assert (result.ok, result.message, result.warnings) == (True, "", ())
    assert result.graph == name
    assert result.seconds > 0


@needs_rtx
def test_a_loop_whose_trips_are_a_length_builds(tmp_path: Path) -> None:
    graph = tiny(
        lambda op, x: op.loop(
            op.scalar_dim(x, 0), [(x, FLOAT)], lambda inner, _, state: [inner.Tanh(state[0])]
        )[0]
    )
    result = check_graph("loop", saved(graph, tmp_path), RANGES)
    assert result.ok, result.message


@needs_rtx
def test_an_operator_outside_the_list_fails_before_tensorrt_sees_it(tmp_path: Path) -> None:
    graph = tiny(lambda op, x: op.RMSNormalization(x, np.ones(8, np.float32)), opset=23)
    result = check_graph("rms", saved(graph, tmp_path), RANGES)
    assert not result.ok
    assert "RMSNormalization" in result.message
    assert "10.3" in result.message


@needs_rtx
def test_an_unused_input_fails(tmp_path: Path) -> None:
    op, x, spare = OpBuilder(), value("x", FLOAT, ("N", 8)), value("spare", FLOAT, ("N", 8))
    y = op.Relu(x)
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    result = check_graph("unused", saved(model(op, [x, spare], [y]), tmp_path), RANGES)
    assert not result.ok
    assert "spare" in result.message


@needs_rtx
def test_an_input_whose_values_decide_a_shape_fails(tmp_path: Path) -> None:
    op, x, shape = OpBuilder(), value("x", FLOAT, (1, 8)), value("shape", INT64, (2,))
    y = op.Expand(x, shape)
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    result = check_graph("values", saved(model(op, [x, shape], [y]), tmp_path), RANGES)
    assert not result.ok
    assert "shape" in result.message


@needs_rtx
def test_an_axis_without_a_range_fails(tmp_path: Path) -> None:
    result = check_graph("axis", saved(tiny(lambda op, x: op.Relu(x)), tmp_path), {"S": (1, 2, 3)})
    assert not result.ok
    assert "'N'" in result.message


@needs_rtx
@pytest.mark.parametrize("content", [b"no onnx", b"", None])
def test_a_file_that_is_no_onnx_fails(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "graph.onnx"
    if content is not None:
        file.write_bytes(content)
    result = check_graph("file", file, RANGES)
    assert not result.ok
    assert "graph.onnx is no ONNX model" in result.message


@needs_rtx
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import os, sys; print('it broke', file=sys.stderr, flush=True); os.abort()",
            "by SIGABRT: it broke",
        ),
        ("import time; time.sleep(60)", "did not finish within 1 s"),
        ("print('no json')", "exit status 0"),
        ("print('[]')", "exit status 0"),
    ],
)
def test_whatever_the_process_does_is_reported(
    code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtx, "RTX_PROCESS", ("-c", code))
    file = saved(tiny(lambda op, x: op.Relu(x)), tmp_path)
    result = check_graph("crash", file, RANGES, timeout_seconds=1)
    assert not result.ok
    assert reason in result.message


def test_without_tensorrt_for_rtx_nothing_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'tightrope\[check\]'"):
        check_bundle(tmp_path)


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "format": FORMAT,
        "family": "test",
        "dims": Dims(
            num_hidden_layers=1,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            hidden_size=32,
            vocab_size=64,
        ),
        "positions": "ordinal",
        "opset_version": OWN_OPSET,
        "precision": "fp16",
        "activations": "float16",
        "embeddings": "float16",
        "slots": 256,
        "prefill_chunk": 64,
        "minimum_onnxruntime": "1.23",
        "source": Source(name="test", revision="sha256:0", licence="unknown"),
    }
    return Manifest(**values | changes)


def bundled(folder: Path, graphs: dict[str, ir.Model], **changes: Any) -> Path:
    """A bundle with nothing but graphs."""
    (folder / "graphs").mkdir(parents=True)
    files = {}
    for name, graph in graphs.items():
        file = saved(graph, folder / "graphs", name)
        size = file.stat().st_size
        files[f"graphs/{name}.onnx"] = FileEntry(bytes=size, sha256=sha256_of(file))
    changes.setdefault("standard_ops", {n: operators_of(g) for n, g in graphs.items()})
    text = json.dumps(manifest(files=files, **changes).to_dict())
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return folder


@needs_rtx
def test_each_standard_graph_of_a_bundle_is_built(tmp_path: Path) -> None:
    graphs = {
        "standard.prefill": attention("append", FLOAT16),
        "standard.decode": attention("step", FLOAT16),
        "host.decoder": tiny(lambda op, x: op.Attention(x, x, x)),
    }
    results = check_bundle(bundled(tmp_path / "x.bundle", graphs))
    assert [result.graph for result in results] == ["standard.decode", "standard.prefill"]
    assert [result.message for result in results] == ["", ""]


@needs_rtx
def test_what_a_bundle_records_is_compared_with_the_list(tmp_path: Path) -> None:
    graphs = {"standard.decode": attention("step", FLOAT16)}
    recorded = {"standard.decode": {"Attention": "layer 3"}}
    (result,) = check_bundle(bundled(tmp_path / "x.bundle", graphs, standard_ops=recorded))
    assert not result.ok
    assert "Attention (node layer 3)" in result.message


@needs_rtx
def test_more_tokens_than_tensorrt_ranks_fail_where_they_are_ranked(tmp_path: Path) -> None:
    graphs = {
        "standard.prefill": attention("append", FLOAT16),
        "standard.prefill-fastv": selection(),
    }
    changes = {"prefill_chunk": 3840, "slots": 4096}
    plain, staged = check_bundle(bundled(tmp_path / "x.bundle", graphs, **changes))
    assert plain.message == "", "a prompt is appended: nothing is ranked"
    assert not staged.ok
    assert "3840 tokens are ranked together" in staged.message


@pytest.mark.parametrize("resolutions", [(336,), (336, 224, 448)])
@pytest.mark.parametrize(
    "graph", ["vision", "select-visionzip", "prefill", "decode", "prefill-fastv"]
)
def test_ranges_are_ordered_and_agree(graph: str, resolutions: tuple[int, ...]) -> None:
    vision = VisionInfo(
        kind="clip",
        image_token_id=1,
        image_token="<image>",
        resolutions=resolutions,
        signals=(),
        sizes={"patch_size": 14, "hidden_size": 32, "head_dim": 8},
    )
    stages = (Stage(layer=2, share=2.0), Stage(layer=4, share=1.0))
    layers = Dims(
        num_hidden_layers=6,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        hidden_size=32,
        vocab_size=64,
    )
    described = manifest(
        prefill_chunk=1200, vision=vision, schedules={"fastv": stages}, dims=layers
    )
    name = GraphName.parse(f"standard.{graph}")
    ranges = described.ranges(name)
    for least, usual, most in ranges.values():
        assert 0 <= least <= usual <= most
    for place in range(3):
        if name.role == "prefill":
            assert ranges["V"][place] <= ranges["S"][place]
            assert ranges["U0"][place] <= ranges["C"][place]
            if name.method:
                assert ranges["K1"][place] <= ranges["K0"][place] <= ranges["V"][place]
        elif name.role == "decode":
            assert ranges["S"] == (1, 1, 1)
        else:
            assert ranges["P"][place] == ranges["V"][place] + 1
            if name.role == "select":
                assert ranges["K"][place] <= max(ranges["V"][place], 1)
            else:
                assert ranges["V"][place] == (ranges["H"][place] // 14) ** 2
