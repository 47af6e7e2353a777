"""Each pass on a small graph, run in ONNX Runtime before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from tightrope.export.coded import Form
from tightrope.export.graphs.passes.linear import store_transposed, to_codes
from tightrope.export.graphs.passes.lower import lower
from tightrope.export.graphs.passes.replace import put_in_place, replace_value
from tightrope.export.graphs.passes.rotary import fuse_rotary
from tightrope.export.graphs.passes.simplify import divide_in_norms, fix_reshapes, simplify, tidy
from tightrope.export.graphs.passes.single import drop_transposes, merge_reshapes
from tightrope.export.graphs.passes.widen import widen
from tightrope.interface.onnx import CONTRIB_DOMAIN, FLOAT, FLOAT16, INT64, IR_VERSION, OPSET
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.int4_matmul.reference import dequantize, pack, quantize

Emit = Callable[[OpBuilder, Sequence[ir.Value]], Any]
Axes = Sequence[int | str]


def value(name: str, axes: Axes, dtype: int = FLOAT) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType(dtype)), shape=ir.Shape(list(axes)))


def model(
    inputs: Sequence[ir.Value],
    emit: Emit,
    gives: int = FLOAT,
    initializers: Sequence[ir.Value] = (),
) -> ir.Model:
    """A graph of one output y, made by `emit(op, inputs)`."""
    op = OpBuilder("toy")
    y = emit(op, inputs)
    y.name, y.type = "y", ir.TensorType(ir.DataType(gives))
    graph = ir.Graph(
        inputs,
        [y],
        nodes=op.nodes,
        initializers=initializers,
        opset_imports={"": OPSET},
        name="toy",
    )
    return ir.Model(graph, ir_version=IR_VERSION)


def run(graph: ir.Model, **feeds: Any) -> Any:
    text = ir.to_proto(graph).SerializeToString()
    session = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def kinds(graph: ir.Model) -> list[str]:
    return [node.op_type for node in graph.graph]


def test_a_value_that_takes_anothers_place_takes_its_name_where_it_is_an_output() -> None:
    graph = model([value("x", ["N"])], lambda op, x: op.Neg(op.Abs(x[0])))
    old = graph.graph.outputs[0]
    node = ir.Node("", "Relu", [graph.graph.inputs[0]])
    graph.graph.append(node)
    replace_value(old, node.outputs[0])
    tidy(graph)
    assert kinds(graph) == ["Relu"] and graph.graph.outputs[0].name == "y"
    assert run(graph, x=np.array([-1, 2], np.float32)).tolist() == [0, 2]


def test_a_nodes_place_is_taken_by_several() -> None:
    graph = model([value("x", ["N"])], lambda op, x: op.Exp(op.Neg(x[0])))
    (negative, _) = list(graph.graph)
    op = OpBuilder("more")
    put_in_place(graph, negative, op, (op.Mul(negative.inputs[0], np.float32(-1)),))
    assert kinds(graph) == ["Constant", "Mul", "Exp"]
    np.testing.assert_allclose(run(graph, x=np.ones(2, np.float32)), np.exp([-1, -1]), rtol=1e-6)


def test_widening_makes_every_half_a_float_before_anything_is_rounded() -> None:
    def emit(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
        half = op.Cast(x[1], to=FLOAT16)
        return op.Add(op.Mul(x[0], np.float16(0.1)), half)

    inputs = [value("x", ["N"], FLOAT16), value("i", ["N"], 6)]
    graph = model(inputs, emit, FLOAT16)
    widen(graph)
    assert {item.dtype for item in graph.graph.inputs} == {ir.DataType.FLOAT, ir.DataType.INT32}
    got = run(graph, x=np.array([1 / 3], np.float32), i=np.array([2049], np.int32))
    # 2049 is no float16; the constant stays the float16 that the modelling code wrote.
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.float32(1 / 3) * np.float32(np.float16(0.1)) + 2049)


def test_a_reshape_that_keeps_axes_gets_a_constant_shape() -> None:
    def emit(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
        shape = op.shape(op.dim(x[0], 0), op.dim(x[0], 1), 2, 3)
        y = op.Reshape(x[0], shape)
        y.shape = ir.Shape(["N", "S", 2, 3])
        return y

    graph = model([value("x", ["N", "S", 6])], emit)
    fix_reshapes(graph)
    tidy(graph)
    assert kinds(graph) == ["Constant", "Reshape"]
    x = np.arange(24, dtype=np.float32).reshape(2, 2, 6)
    np.testing.assert_array_equal(run(graph, x=x), x.reshape(2, 2, 2, 3))


def test_two_lengths_that_change_leave_a_reshape_as_it_is() -> None:
    def emit(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
        y = op.Reshape(x[0], op.shape(op.dim(x[0], 1), op.dim(x[0], 0)))
        y.shape = ir.Shape(["S", "N"])
        return y

    graph = model([value("x", ["N", "S"])], emit)
    before = kinds(graph)
    fix_reshapes(graph)
    assert kinds(graph) == before
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(run(graph, x=x), x.reshape(3, 2))


@pytest.mark.parametrize("swapped", [True, False])
def test_a_norm_divides(swapped: bool) -> None:
    def emit(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
        square = op.ReduceMean(op.Mul(x[0], x[0]), [-1], keepdims=1)
        factor = op.Reciprocal(op.Sqrt(op.Add(square, np.float32(1e-6))))
        return op.Mul(factor, x[0]) if swapped else op.Mul(x[0], factor)

    graph = model([value("x", ["N", 8])], emit)
    x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    before = run(graph, x=x)
    divide_in_norms(graph)
    tidy(graph)
    assert "Div" in kinds(graph) and "Reciprocal" not in kinds(graph)
    np.testing.assert_allclose(run(graph, x=x), before, rtol=1e-6)


def test_simplifying_folds_constants_drops_casts_to_the_same_and_merges_twins() -> None:
    def emit(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
        scale = op.Add(np.float32(1), np.float32(2))
        same = op.Cast(x[0], to=FLOAT)
        same.dtype = ir.DataType.FLOAT
        return op.Add(op.Mul(same, scale), op.Mul(same, scale))

    graph = model([value("x", ["N"])], emit)
    simplify(graph)
    assert "Cast" not in kinds(graph)
    assert kinds(graph).count("Mul") == 1 and kinds(graph).count("Add") == 1
    assert run(graph, x=np.ones(1, np.float32)).tolist() == [6]


def rotation(op: OpBuilder, x: Sequence[ir.Value], back: int) -> Any:
    """Hugging Face's rotation of x [N,H,S,4] by cos and sin [N,1,S,4]; back: where halves part."""
    front = op.Slice(x[0], [0], [2], [3])
    behind = op.Slice(x[0], [back], [4], [3])
    turned = op.Concat(op.Neg(behind), front, axis=3)
    return op.Add(op.Mul(x[0], x[1]), op.Mul(turned, x[2]))


def test_a_rotation_of_halves_becomes_one_operator_of_equal_numbers() -> None:
    inputs = [value("x", ["N", 2, "S", 4]), *(value(n, ["N", 1, "S", 4]) for n in ("cos", "sin"))]
    graph = model(inputs, lambda op, x: rotation(op, x, 2))
    rng = np.random.default_rng(0)
    angle = rng.normal(size=(2, 1, 5, 2)).astype(np.float32)
    both = np.concatenate([angle, angle], -1)
    feeds = {
        "x": rng.normal(size=(2, 2, 5, 4)).astype(np.float32),
        "cos": np.cos(both),
        "sin": np.sin(both),
    }
    before = run(graph, **feeds)
    fuse_rotary(graph)
    tidy(graph)
    assert "RotaryEmbedding" in kinds(graph) and "Neg" not in kinds(graph)
    assert graph.graph.opset_imports[CONTRIB_DOMAIN] == 1
    np.testing.assert_allclose(run(graph, **feeds), before, atol=1e-6)


def test_another_rotation_stays_as_it_is() -> None:
    inputs = [value("x", ["N", 2, "S", 4]), *(value(n, ["N", 1, "S", 4]) for n in ("cos", "sin"))]
    graph = model(inputs, lambda op, x: rotation(op, x, 2))
    slices = [node for node in graph.graph if node.op_type == "Slice"]
    # Halves that do not begin where a full rotation's do.
    slices[0].replace_input_with(1, slices[1].inputs[1])
    before = kinds(graph)
    fuse_rotary(graph)
    assert kinds(graph) == before


def linear() -> tuple[ir.Model, Any]:
    """x times the transpose of a weight [6,64], as torch writes a linear layer, and the weight."""
    weight = value("model.w", [6, 64])
    numbers = np.random.default_rng(2).normal(size=(6, 64)).astype(np.float32)
    graph = model(
        [value("x", ["N", 64])],
        lambda op, x: op.MatMul(x[0], op.Transpose(weight, perm=[1, 0])),
        initializers=[weight],
    )
    return graph, numbers


def test_a_linear_layers_weight_is_stored_as_the_product_reads_it() -> None:
    graph, numbers = linear()
    store_transposed(graph)
    tidy(graph)
    assert kinds(graph) == ["MatMul"]
    stored = graph.graph.initializers["model.w.transposed"]
    assert stored.metadata_props["parameter"] == "model.w"
    assert stored.shape is not None and stored.shape.dims == (64, 6)
    stored.const_value = ir.Tensor(np.ascontiguousarray(numbers.T))
    x = np.random.default_rng(3).normal(size=(2, 64)).astype(np.float32)
    np.testing.assert_allclose(run(graph, x=x), x @ numbers.T, rtol=1e-4, atol=1e-5)


def test_a_stored_weight_becomes_int4_codes_and_scales() -> None:
    graph, numbers = linear()
    store_transposed(graph)
    to_codes(graph, lambda name: Form(4, 32), host=True)
    tidy(graph)
    lower(graph, "general")
    codes, scale, _ = quantize(np.ascontiguousarray(numbers.T), 32)
    tensors = {
        "model.w.codes": ir.PackedTensor(pack(codes), ir.DataType.INT4, shape=ir.Shape([64, 6])),
        "model.w.scale": ir.Tensor(scale.astype(np.float32)),
    }
    for name, tensor in tensors.items():
        graph.graph.initializers[name].const_value = tensor
    assert kinds(graph) == ["DequantizeLinear", "MatMul"]
    x = np.random.default_rng(3).normal(size=(2, 64)).astype(np.float32)
    got = run(graph, x=x)
    np.testing.assert_allclose(got, x @ dequantize(codes, scale), rtol=0.05, atol=0.3)


@pytest.mark.parametrize(
    ("form", "host", "parts"),
    [
        (Form(4, 32), True, ["codes", "scale"]),
        (Form(4, 32), False, ["codes", "scale"]),
        (Form(4, 32, zero=True), True, ["codes", "scale", "zero"]),
        (Form(4, 32, zero=True), False, ["codes", "scale", "shift"]),
        (Form(4, 32, shift=True), True, ["codes", "scale", "shift"]),
        (Form(4, 32, shift=True), False, ["codes", "scale", "shift"]),
        (Form(8, 16, shift=True), True, ["codes", "scale", "shift"]),
        (Form(8, 16), False, ["transposed"]),
        (None, True, ["transposed"]),
    ],
)
def test_a_graph_asks_for_the_parts_that_its_runtime_multiplies(
    form: Form | None, host: bool, parts: list[str]
) -> None:
    graph, _ = linear()
    store_transposed(graph)
    asked = []

    def form_of(name: str) -> Form | None:
        asked.append(name)
        return form

    to_codes(graph, form_of, host)
    tidy(graph)
    assert asked == ["model.w"]
    stored = {value.metadata_props["layout"]: value for value in graph.graph.initializers.values()}
    assert list(stored) == parts
    if form is not None and "codes" in stored:
        wanted = ir.DataType.INT4 if form.bits == 4 else ir.DataType.INT8
        assert stored["codes"].dtype == wanted
        assert stored["scale"].shape == ir.Shape([64 // form.block_size, 6])


def heads(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
    """x [N,S,8] parted into two heads, rotated by position, and put together again."""
    parted = op.Reshape(x[0], [0, 0, 2, 4])
    parted.shape = ir.Shape(["N", "S", 2, 4])
    across = op.Transpose(parted, perm=[0, 2, 1, 3])
    across.shape = ir.Shape(["N", 2, "S", 4])
    places = op.Cast(x[1], to=INT64)
    turned = op.RotaryEmbedding(across, places, x[2], x[3], domain=CONTRIB_DOMAIN)
    turned.shape = across.shape
    grouped = op.Reshape(turned, [0, 1, 2, 4])
    back = op.Transpose(op.Reshape(grouped, [0, 2, 1, 4]), perm=[0, 2, 1, 3])
    back.shape, back.producer().inputs[0].shape = parted.shape, across.shape
    whole = op.Reshape(back, [0, 0, 8])
    whole.shape = ir.Shape(["N", "S", 8])
    return whole


def test_for_one_token_heads_are_parted_and_put_together_without_a_transpose() -> None:
    inputs = [value("inputs_embeds", ["N", "S", 8]), value("query_position", ["N", "S"], 6)]
    inputs += [value(name, [9, 2]) for name in ("cos", "sin")]
    graph = model(inputs, heads)
    graph.graph.opset_imports[CONTRIB_DOMAIN] = 1
    rng = np.random.default_rng(0)
    feeds = {
        "inputs_embeds": rng.normal(size=(3, 1, 8)).astype(np.float32),
        "query_position": np.array([[2], [0], [8]], np.int32),
        "cos": rng.normal(size=(9, 2)).astype(np.float32),
        "sin": rng.normal(size=(9, 2)).astype(np.float32),
    }
    before = run(graph, **feeds)
    drop_transposes(graph)
    merge_reshapes(graph)
    tidy(graph)
    assert [kind for kind in kinds(graph) if kind != "Constant"] == [
        "Cast",
        "RotaryEmbedding",
        "Reshape",
    ]
    np.testing.assert_array_equal(run(graph, **feeds), before)


def test_for_one_token_transposes_of_other_axes_stay() -> None:
    def emit(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
        parted = op.Reshape(x[0], [0, 0, 2, 4])
        parted.shape = ir.Shape(["N", "S", 2, 4])
        turned = op.Transpose(parted, perm=[0, 1, 3, 2])
        turned.shape = ir.Shape(["N", "S", 4, 2])
        return op.Add(turned, op.Cast(op.Unsqueeze(x[1], [2, 3]), to=FLOAT))

    inputs = [value("inputs_embeds", ["N", "S", 8]), value("query_position", ["N", "S"], 6)]
    graph = model(inputs, emit)
    feeds = {
        "inputs_embeds": np.arange(16, dtype=np.float32).reshape(2, 1, 8),
        "query_position": np.ones((2, 1), np.int32),
    }
    before = run(graph, **feeds)
    drop_transposes(graph)
    merge_reshapes(graph)
    tidy(graph)
    assert "Transpose" in kinds(graph)
    np.testing.assert_array_equal(run(graph, **feeds), before)
