"""Products of prompts in int8 with inputs in two bytes: as close as their bound says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from tightrope.export.coded import Form
from tightrope.export.graphs.passes.linear import store_transposed, to_codes
from tightrope.export.graphs.passes.prompt_int8 import multiply_in_int8
from tightrope.export.graphs.passes.simplify import tidy
from tightrope.interface.onnx import CONTRIB_DOMAIN, IR_VERSION, OPSET
from tightrope.jetson.probe import int8_products, read_cpu_flags
from tightrope.plugins.builder import OpBuilder

needs_int8 = pytest.mark.skipif(
    int8_products(read_cpu_flags()) is None, reason="this processor has no products of int8"
)
INPUTS, OUTPUTS = 64, {"q": 6, "k": 4}


def typed(name: str, axes: list[Any]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(axes))


def layers(form: Form, tokens: str | int = "S") -> ir.Model:
    """Two linear layers over one x [N,S,64], whose matrices are in codes."""
    x = typed("x", ["N", tokens, INPUTS])
    weights = {name: typed(name, [count, INPUTS]) for name, count in OUTPUTS.items()}
    op = OpBuilder("toy")
    ys = [op.MatMul(x, op.Transpose(weight, perm=[1, 0])) for weight in weights.values()]
    for y, name in zip(ys, OUTPUTS, strict=True):
        y.name, y.type = f"y.{name}", ir.TensorType(ir.DataType.FLOAT)
    opsets = {"": OPSET}
    graph = ir.Graph([x], ys, nodes=op.nodes, initializers=list(weights.values()), name="toy")
    graph.opset_imports.update(opsets)
    model = ir.Model(graph, ir_version=IR_VERSION)
    store_transposed(model)
    to_codes(model, lambda name: form, host=True)
    multiply_in_int8(model)
    tidy(model)
    return model


def answers(model: ir.Model, codes: dict[str, Any], scales: dict[str, Any], x: Any) -> Any:
    for name in OUTPUTS:
        stored = model.graph.initializers
        stored[f"{name}.prompt_codes"].const_value = ir.Tensor(codes[name])
        stored[f"{name}.prompt_scale"].const_value = ir.Tensor(scales[name])
    model.graph.opset_imports.pop("tightrope", None)
    text = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUTS, session.run(None, {"x": x}), strict=True))


@needs_int8
@pytest.mark.parametrize(
    "form", [Form(4, 32), Form(4, 64, zero=True), Form(4, 16, shift=True), Form(4, 32, order=True)]
)
def test_products_lie_within_half_a_step_of_the_finer_byte(form: Form) -> None:
    model = layers(form)
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert kinds.count("QuantizeLinear") == 2, "layers over one input share its bytes"
    assert "Int4MatMul" not in kinds
    rng = np.random.default_rng(0)
    codes = {
        name: rng.integers(-127, 128, (INPUTS, count)).astype(np.int8)
        for name, count in OUTPUTS.items()
    }
    scales = {
        name: rng.uniform(1e-3, 1e-2, count).astype(np.float32) for name, count in OUTPUTS.items()
    }
    x = rng.normal(size=(2, 5, INPUTS)).astype(np.float32)
    x[0, 1] *= 3000  # a token that lies far from all others
    x[:, :, 7] *= 50  # an input that does
    x[1, 4] = 0  # padding
    got = answers(model, codes, scales, x)
    for name in OUTPUTS:
        weight = codes[name].astype(np.float64) * scales[name]
        wanted = x.astype(np.float64) @ weight
        half = np.abs(x).max(-1, keepdims=True) / 127 / 254 / 2
        bound = half * np.abs(weight).sum(0) * 1.05 + 1e-5 * (np.abs(x) @ np.abs(weight))
        error = np.abs(got[name] - wanted)
        print(name, "error", error.max(), "of at most", bound.max())
        assert (error <= bound).all()
        # One byte alone would not do.
        assert bound[0, 0].max() < 0.01 * np.abs(wanted[0, 0]).max()


@needs_int8
def test_a_row_does_not_depend_on_those_beside_it() -> None:
    rng = np.random.default_rng(1)
    codes = {
        name: rng.integers(-127, 128, (INPUTS, count)).astype(np.int8)
        for name, count in OUTPUTS.items()
    }
    scales = {name: np.full(count, 0.01, np.float32) for name, count in OUTPUTS.items()}
    x = rng.normal(size=(1, 6, INPUTS)).astype(np.float32)
    loud = x.copy()
    loud[0, 3:] *= 1e4
    alone, beside = (answers(layers(Form(4, 32)), codes, scales, some) for some in (x, loud))
    for name in OUTPUTS:
        np.testing.assert_array_equal(alone[name][0, :3], beside[name][0, :3])


def test_the_last_tokens_product_keeps_its_codes() -> None:
    model = layers(Form(4, 32), tokens=1)
    kinds = [(node.domain, node.op_type) for node in model.graph]
    assert (CONTRIB_DOMAIN, "MatMulIntegerToFloat") not in kinds
    assert [kind for _, kind in kinds] == ["Int4MatMul", "Int4MatMul"]
