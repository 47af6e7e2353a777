"""Passes after which TensorRT's parser makes fewer layers, run in ONNX Runtime before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from tightrope.export.graphs.passes.cut import cut_by_splits
from tightrope.export.graphs.passes.lengths import share_lengths
from tightrope.export.graphs.passes.simplify import tidy
from tightrope.interface.onnx import END, FLOAT, IR_VERSION, OPSET
from tightrope.plugins.builder import OpBuilder

Emit = Callable[[OpBuilder, Sequence[ir.Value]], Any]
Axes = Sequence[int | str]
TO_LAST = 2**31 - 1
"""How torch's exporter writes an end."""


def graph_of(emit: Emit, *inputs: Axes) -> ir.Model:
    """A graph of inputs x0, x1 and one output, which has the numbers of all that `emit` gives."""
    op = OpBuilder("toy")
    values = [
        ir.Value(
            name=f"x{place}", type=ir.TensorType(ir.DataType(FLOAT)), shape=ir.Shape(list(axes))
        )
        for place, axes in enumerate(inputs)
    ]
    y = op.Concat(*[op.Reshape(part, [-1]) for part in emit(op, values)], axis=0)
    y.name, y.type = "y", ir.TensorType(ir.DataType(FLOAT))
    graph = ir.Graph(values, [y], nodes=op.nodes, opset_imports={"": OPSET}, name="toy")
    return ir.Model(graph, ir_version=IR_VERSION)


def run(graph: ir.Model, *arrays: Any) -> Any:
    session = onnxruntime.InferenceSession(
        ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {f"x{place}": array for place, array in enumerate(arrays)})[0]


def drawn(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def count(graph: ir.Model, kind: str) -> int:
    return sum(node.op_type == kind for node in graph.graph)


def halves(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
    """As a rotation parts them."""
    front = op.Slice(x[0], [0], [2], [2], [1])
    return op.Neg(op.Slice(x[0], [2], [TO_LAST], [2], [1])), front


def at_a_length(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
    """As attention's mass is parted into that of slots and that of new tokens."""
    place = op.dim(x[1], 0)
    return op.Slice(x[0], place, [END], [-2]), op.Slice(x[0], [0], place, [-2])


def up_to_a_length(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
    return (op.Slice(x[0], [0], op.dim(x[1], 0), [1]),)


def one_from_the_rest(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
    """As a step parts the weight of its own token from those of slots."""
    return op.Slice(x[0], [0], [1], [1]), op.Slice(x[0], [1], [END], [1])


def behind_a_constant(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
    return (op.Slice(x[0], [3], [TO_LAST], [2]),)


CUT = {
    "halves": halves,
    "at a length": at_a_length,
    "up to a length": up_to_a_length,
    "one from the rest": one_from_the_rest,
    "behind a constant": behind_a_constant,
}


@pytest.mark.parametrize("place", [0, 1, 3, 5])
@pytest.mark.parametrize("emit", CUT.values(), ids=CUT)
def test_slices_that_part_a_value_in_two_become_one_split(emit: Emit, place: int) -> None:
    graph = graph_of(emit, ["N", "S", 4], ["U"])
    arrays = drawn(2, 5, 4), drawn(place)
    before = run(graph, *arrays)
    cut_by_splits(graph)
    tidy(graph)
    assert count(graph, "Slice") == 0 and count(graph, "Split") == 1
    np.testing.assert_array_equal(run(graph, *arrays), before)


def test_parts_are_parted_in_their_turn() -> None:
    """As what turns of a partial rotation is."""

    def emit(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
        turning, still = op.Slice(x[0], [0], [3], [2]), op.Slice(x[0], [3], [TO_LAST], [2])
        turning.shape = ir.Shape(["N", "S", 3])
        return op.Slice(turning, [1], [TO_LAST], [2]), op.Slice(turning, [0], [1], [2]), still

    graph = graph_of(emit, ["N", "S", 4])
    before = run(graph, drawn(2, 5, 4))
    cut_by_splits(graph)
    assert count(graph, "Slice") == 0 and count(graph, "Split") == 2
    np.testing.assert_array_equal(run(graph, drawn(2, 5, 4)), before)


def test_slices_at_other_places_become_other_splits() -> None:
    def emit(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
        ends = (op.Slice(x[0], [0], [end], [2]) for end in (1, 3))
        return (*ends, op.Slice(x[0], [0], op.dim(x[1], 0), [1]))

    graph = graph_of(emit, ["N", "S", 4], ["U"])
    arrays = drawn(2, 5, 4), drawn(3)
    before = run(graph, *arrays)
    cut_by_splits(graph)
    assert count(graph, "Slice") == 0 and count(graph, "Split") == 3
    np.testing.assert_array_equal(run(graph, *arrays), before)


STAY = {
    "a middle": lambda op, x: (op.Slice(x[0], [1], [3], [2]),),
    "every other": lambda op, x: (op.Slice(x[0], [0], [3], [2], [2]),),
    "two axes": lambda op, x: (op.Slice(x[0], [0, 0], [1, 1], [0, 1]),),
    "all of it": lambda op, x: (op.Slice(x[0], [0], [END], [1]),),
    "counted from the end": lambda op, x: (op.Slice(x[0], [-2], [END], [1]),),
    "beyond the end": lambda op, x: (op.Slice(x[0], [0], [9], [2]),),
    "at most some of a free length": lambda op, x: (op.Slice(x[0], [0], [9], [1]),),
    "as many from the end": lambda op, x: (op.Slice(x[0], op.Neg(op.dim(x[1], 0)), [END], [1]),),
    "without axes": lambda op, x: (op.Slice(x[0], [0], [1]),),
}


@pytest.mark.parametrize("emit", STAY.values(), ids=STAY)
def test_other_slices_stay(emit: Emit) -> None:
    graph = graph_of(emit, ["N", "S", 4], ["U"])
    before = [node.op_type for node in graph.graph]
    cut_by_splits(graph)
    assert [node.op_type for node in graph.graph] == before


def test_an_output_that_was_a_slice_keeps_its_name() -> None:
    graph = graph_of(lambda op, x: (x[0],), ["N", 4])
    op = OpBuilder("out")
    (x,) = graph.graph.inputs
    front = op.Slice(x, [0], [1], [1])
    front.name, front.type = "front", ir.TensorType(ir.DataType(FLOAT))
    graph.graph.extend(op.nodes)
    graph.graph.outputs[0] = front
    cut_by_splits(graph)
    tidy(graph)
    assert [value.name for value in graph.graph.outputs] == ["front"]
    assert run(graph, drawn(2, 4)).shape == (2, 1)


def test_a_length_is_read_off_the_first_value_that_has_it() -> None:
    """So that what layers compute from it is the same, and merged."""

    def emit(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
        rows = []
        for part in (op.Abs(x[0]), op.Exp(x[0])):
            part.shape = ir.Shape(["N", "S"])
            rows.append(op.Reshape(part, op.shape(1, op.dim(part, 1), op.dim(part, 0))))
        return rows

    graph = graph_of(emit, ["N", "S"])
    assert count(graph, "Shape") == 4
    before = run(graph, drawn(2, 3))
    share_lengths(graph)
    tidy(graph)
    assert count(graph, "Shape") == 2 and count(graph, "Concat") == 2  # one is the output's
    assert {str(n.inputs[0].name) for n in graph.graph if n.op_type == "Shape" and n.inputs[0]} == {
        "x0"
    }
    np.testing.assert_array_equal(run(graph, drawn(2, 3)), before)


def test_a_length_of_a_new_name_is_read_where_it_first_is() -> None:
    """Behind a stage of a schedule fewer tokens are left: no input has that length."""

    def emit(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
        left = op.Concat(x[0], x[1], axis=0)
        parts = [left, op.Abs(left), op.Exp(left)]
        for part in parts:
            part.shape = ir.Shape(["A + B"])
        return [op.Expand(np.float32(1), op.dim(part, 0)) for part in parts]

    graph = graph_of(emit, ["A"], ["B"])
    share_lengths(graph)
    tidy(graph)
    assert count(graph, "Shape") == 1
    assert run(graph, drawn(2), drawn(3)).tolist() == [1.0] * 15


def test_lengths_without_a_name_of_their_own_stay() -> None:
    def emit(op: OpBuilder, x: Sequence[ir.Value]) -> Any:
        nameless = op.Abs(x[0])
        whole, several = op.Shape(x[0]), op.Shape(x[0], start=0, end=2)
        return [op.Cast(part, to=FLOAT) for part in (op.dim(nameless, 0), whole, several)]

    graph = graph_of(emit, ["N", "S"])
    before = [node.op_type for node in graph.graph]
    share_lengths(graph)
    assert [node.op_type for node in graph.graph] == before
