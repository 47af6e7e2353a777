"""Graphs written as Python calls."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tightrope.plugins.builder import OpBuilder

FLOAT = 1


def run(op: OpBuilder, x: ir.Value, out: ir.Value, value: Any) -> Any:
    out.name, out.type = "out", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], [out], nodes=op.nodes, opset_imports={"": 21}, name="graph")
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": value})[0]


@pytest.fixture
def x() -> Any:
    return ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["I", "V"]))


def test_a_loop_reads_outer_values_and_loops_of_its_own(x: ir.Value) -> None:
    op = OpBuilder()
    doubled = op.Mul(x, np.float32(2))
    outer = op.Add(doubled, np.float32(3))

    def body(op: OpBuilder, _: ir.Value, state: Sequence[ir.Value]) -> list[ir.Value]:
        once = op.Add(state[0], outer)
        (twice,) = op.loop(
            op.value(np.int64(2)),
            [(once, FLOAT)],
            lambda inner, _, state: [inner.Add(state[0], op.Add(once, doubled))],
        )
        return [inner_sum(op, twice)]

    def inner_sum(op: OpBuilder, value: ir.Value) -> Any:
        return op.Sub(value, doubled)

    (out,) = op.loop(op.scalar_dim(x, 0), [(outer, FLOAT)], body)
    got = run(op, x, out, np.ones((2, 3), np.float32))
    # x = 1, so doubled = 2, outer = 5; a round: s -> s + 5 + 2 * (s + 5 + 2) - 2.
    want = 5
    for _ in range(2):
        want = want + 5 + 2 * (want + 5 + 2) - 2
    np.testing.assert_array_equal(got, np.full((2, 3), want, np.float32))


def test_the_length_of_the_last_axis(x: ir.Value) -> None:
    op = OpBuilder()
    out = op.Cast(op.Add(op.dim(x, -1), op.Mul(op.dim(x, 0), [10])), to=FLOAT)
    assert run(op, x, out, np.ones((2, 3), np.float32)).tolist() == [23]


def test_a_plain_float_is_refused_because_its_type_is_not_said() -> None:
    with pytest.raises(TypeError, match="element type"):
        OpBuilder().value(0.5)
