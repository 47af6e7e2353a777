"""Four-bit weights: their error, how they are stored, and the fused product in ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.int4_matmul import SCHEMA, body
from tightrope.plugins.int4_matmul.reference import dequantize, int4_matmul, pack, quantize

weights = st.tuples(st.integers(1, 4), st.integers(1, 12), st.sampled_from([32, 128]))


def weight_of(seed: int, blocks: int, columns: int, block_size: int) -> Any:
    rng = np.random.default_rng(seed)
    return rng.normal(scale=0.1, size=(blocks * block_size, columns)).astype(np.float32)


def steps(scale: Any, block_size: int) -> Any:
    return np.repeat(scale.astype(np.float32), block_size, 0)


@settings(max_examples=60, deadline=None)
@given(weights, st.integers(0, 10**6))
def test_a_weight_is_off_by_half_a_step_unless_it_is_out_of_reach(shape: Any, seed: int) -> None:
    weight = weight_of(seed, *shape)
    codes, scale, _ = quantize(weight, shape[2])
    assert codes.min() >= -8 and codes.max() <= 7
    step = steps(scale, shape[2])
    reached = np.clip(weight, -8 * step, 7 * step)
    error = np.abs(dequantize(codes, scale) - reached)
    assert (error <= step / 2 * 1.00001).all()
    # The smallest scale that is tried loses a fifth of the range.
    assert (np.abs(reached - weight) <= 0.21 * np.abs(weight).max()).all()


@settings(max_examples=60, deadline=None)
@given(weights, st.integers(0, 10**6))
def test_a_block_errs_no_more_than_with_the_scale_that_reaches_everything(
    shape: Any, seed: int
) -> None:
    blocks, columns, block_size = shape
    weight = weight_of(seed, *shape)
    chosen = dequantize(*quantize(weight, block_size))
    by_block = weight.reshape(blocks, block_size, columns)
    reach = np.maximum(by_block.max(1) / 7, -by_block.min(1) / 8).astype(np.float16)
    step = steps(reach, block_size)
    plain = np.clip(np.rint(weight / step), -8, 7) * step
    squares = [((w - weight) ** 2).reshape(by_block.shape).sum(1) for w in (chosen, plain)]
    assert (squares[0] <= squares[1] * 1.00001).all()


@pytest.mark.parametrize("size", [0, 1e-9, 1e-3, 1e3])
def test_scales_are_positive_for_weights_of_any_size(size: float) -> None:
    weight = weight_of(0, 2, 5, 32) * np.float32(size)
    codes, scale, _ = quantize(weight, 32)
    assert (scale > 0).all() and np.isfinite(scale).all()
    if not size:
        assert not dequantize(codes, scale).any()


def test_weights_on_the_grid_survive_unchanged() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-8, 8, size=(64, 5)).astype(np.int8)
    codes[0], codes[32] = -8, -8
    scale = np.float16(2.0 ** rng.integers(-6, 0, size=(2, 5)))
    weight = dequantize(codes, scale)
    again, same_scale, _ = quantize(weight, 32)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_array_equal(same_scale, scale)


@given(st.integers(0, 10**6), st.integers(1, 20))
def test_packed_codes_read_back_as_onnx_reads_them(seed: int, pairs: int) -> None:
    codes = np.random.default_rng(seed).integers(-8, 8, size=(2, pairs)).astype(np.int8)
    packed = pack(codes)
    assert packed.dtype == np.uint8 and packed.size == pairs
    tensor = onnx.TensorProto(data_type=onnx.TensorProto.INT4, dims=codes.shape)
    tensor.raw_data = packed.tobytes()
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int8), codes)


def build(weight: Any, block_size: int) -> bytes:
    codes, scale, _ = quantize(weight, block_size)
    axes = ir.Shape(["S", len(weight)])
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=axes)
    stored = ir.PackedTensor(pack(codes), ir.DataType.INT4, shape=ir.Shape(codes.shape))
    constants = []
    for name, tensor in (("weight", stored), ("scale", ir.Tensor(scale.astype(np.float32)))):
        value = ir.Value(name=name, const_value=tensor, shape=tensor.shape)
        value.type = ir.TensorType(tensor.dtype)
        constants.append(value)
    op = OpBuilder()
    codes_in, scale_in = constants
    y = body.body(op, x, codes_in, scale_in, block_size)
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [x], [y], nodes=op.nodes, initializers=constants, opset_imports={"": 21}, name="body"
    )
    return ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()  # type: ignore[no-any-return]


def options(accuracy_level: int) -> Any:
    chosen = ort.SessionOptions()
    chosen.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", str(accuracy_level))
    return chosen


@pytest.mark.parametrize("block_size", [32, 128])
@pytest.mark.parametrize("rows", [1, 5])
def test_the_body_equals_the_reference_at_accuracy_level_1(rows: int, block_size: int) -> None:
    weight = weight_of(rows, 2, 24, block_size)
    x = np.random.default_rng(1).normal(size=(rows, len(weight))).astype(np.float32)
    session = ort.InferenceSession(
        build(weight, block_size), options(1), providers=["CPUExecutionProvider"]
    )
    want = int4_matmul(x, *quantize(weight, block_size))
    np.testing.assert_allclose(session.run(None, {"x": x})[0], want, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("block_size", [32, 128])
def test_onnx_runtime_fuses_the_body_into_one_node(tmp_path: Path, block_size: int) -> None:
    chosen = options(1)
    chosen.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    model = build(weight_of(0, 2, 24, block_size), block_size)
    ort.InferenceSession(model, chosen, providers=["CPUExecutionProvider"])
    graph = onnx.load(chosen.optimized_model_filepath).graph
    assert [node.op_type for node in graph.node] == ["MatMulNBits"]


def test_the_default_block_is_32() -> None:
    assert SCHEMA.attributes["block_size"] == 32


def with_parts(parts: dict[str, Any], block_size: int) -> bytes:
    """A product of x [1,S,K] with a weight in codes; parts: weight, scale, and zero or shift."""
    rows = len(parts["weight"])
    axes = ir.Shape([1, "S", rows])
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=axes)
    constants = {}
    for name, array in parts.items():
        if name in ("weight", "zero"):
            kind, shape = ir.DataType.INT4, ir.Shape(array.shape)
            tensor: Any = ir.PackedTensor(pack(array), kind, shape=shape)
        else:
            tensor = ir.Tensor(array)
        constants[name] = ir.Value(name=name, const_value=tensor, shape=tensor.shape)
        constants[name].type = ir.TensorType(tensor.dtype)
    op = OpBuilder()
    y = body.body(op, x, block_size=block_size, **constants)
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [x],
        [y],
        nodes=op.nodes,
        initializers=list(constants.values()),
        opset_imports={"": 21},
        name="body",
    )
    return ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()  # type: ignore[no-any-return]


@pytest.mark.parametrize("block_size", [16, 32, 128])
@pytest.mark.parametrize("rows", [1, 5])
def test_minima_equal_zeros_at_accuracy_level_1(tmp_path: Path, rows: int, block_size: int) -> None:
    """Both mean the same weight: zeros are for ONNX Runtime, minima for what has no zeros."""
    rng = np.random.default_rng(rows)
    codes = rng.integers(-8, 8, (3 * block_size, 25)).astype(np.int8)
    scale = rng.uniform(1e-3, 2e-2, (3, 25)).astype(np.float16).astype(np.float32)
    zero = rng.integers(-8, 8, (3, 25)).astype(np.int8)
    x = rng.normal(size=(1, rows, len(codes))).astype(np.float32)
    results, kinds = [], []
    for part in ({"zero": zero}, {"shift": -zero * scale}):
        chosen = options(1)
        chosen.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        model = with_parts({"weight": codes, "scale": scale, **part}, block_size)
        session = ort.InferenceSession(model, chosen, providers=["CPUExecutionProvider"])
        results.append(session.run(None, {"x": x})[0])
        kinds.append([n.op_type for n in onnx.load(chosen.optimized_model_filepath).graph.node])
    want = int4_matmul(x, codes, scale, zero)
    for result in results:
        np.testing.assert_allclose(result, want, rtol=0, atol=1e-6 * np.abs(want).max() * 4)
    assert kinds[0] == ["MatMulNBits"], "zeros cost no node"
    assert kinds[1].count("MatMulNBits") == 1 and "DequantizeLinear" not in kinds[1]


def test_the_reference_takes_zeros_and_minima_together() -> None:
    codes = np.array([[-8], [7]], np.int8)
    scale, zero = np.array([[0.5]], np.float16), np.array([[3]], np.int8)
    weight = dequantize(codes, scale, zero, np.array([[10]], np.float32))
    np.testing.assert_array_equal(weight, [[-11 * 0.5 + 10], [4 * 0.5 + 10]])


def test_an_odd_code_is_packed_alone() -> None:
    assert pack(np.array([[1, -1, 7]], np.int8)).tolist() == [0xF1, 0x07]
