"""Runs a selector's graph in ONNX Runtime, own ops lowered as in a host graph."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tightrope.export.selectors import SELECTORS
from tightrope.interface import select_inputs, select_outputs, vision_outputs
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.select_tokens import body as select_tokens

WIDTH, KEY_WIDTH, EMBED = 16, 4, 16  # Dv, dh, E: cosines of +-1 rows of 16 are exact
DTYPES = {1: np.float32, 10: np.float16}


@dataclass(frozen=True)
class LinearContext:
    """A projector of one product."""

    dtype: int
    weight: npt.NDArray[Any]

    def project(self, op: OpBuilder, states: ir.Value) -> ir.Value:
        return op.MatMul(states, self.weight)


Run = Callable[..., tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]


@pytest.fixture(scope="session")
def projector() -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(7)
    return rng.normal(size=(WIDTH, EMBED)).astype(np.float32)


@pytest.fixture(scope="session")
def standard_graph(projector: npt.NDArray[np.float32]) -> Callable[[str], ir.Model]:
    """name -> the graph in half precision, as a board gets it."""
    return lambda name: build(name, 10, projector)


@pytest.fixture(scope="session")
def run(projector: npt.NDArray[np.float32]) -> Run:
    """(name, inputs by name, keep, dtype) -> index, embeds."""
    sessions: dict[tuple[str, int], ort.InferenceSession] = {}

    def run_selector(
        name: str, inputs: dict[str, Any], keep: int, dtype: int = 1
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        if (name, dtype) not in sessions:
            sessions[name, dtype] = _session(name, dtype, projector)
        session = sessions[name, dtype]
        # The values of the ramp are never read.
        feeds = {**inputs, "keep_ramp": np.full(keep, -5, np.int64)}
        wanted = {row.name for row in session.get_inputs()}
        index, embeds = session.run(None, {key: feeds[key] for key in wanted})
        return index, embeds

    return run_selector


def build(name: str, dtype: int, projector: npt.NDArray[np.float32]) -> ir.Model:
    """The graph of one selector with nothing but standard operators."""
    selector = SELECTORS[name]
    assert selector.body is not None
    signals = vision_outputs(WIDTH, KEY_WIDTH, EMBED, selector.signals)[1:]
    types = {"T": dtype, "float32": 1, "int64": 7}
    values = {
        row.name: ir.Value(
            name=row.name,
            type=ir.TensorType(ir.DataType(types[row.dtype])),
            shape=ir.Shape(row.axes),
        )
        for row in select_inputs(EMBED, signals, selector.text_guided)
    }
    op = OpBuilder()
    outputs = selector.body(op, values, LinearContext(dtype, projector.astype(DTYPES[dtype])))
    for value, row in zip(outputs, select_outputs(EMBED), strict=True):
        value.name = row.name
        value.type = ir.TensorType(ir.DataType(types[row.dtype]))
        value.shape = ir.Shape(row.axes)
    graph = ir.Graph(
        values.values(), outputs, nodes=op.nodes, opset_imports={"": 21}, name="select"
    )
    _lower(graph)
    _every_input_is_read(graph)
    return ir.Model(graph, ir_version=10)


def _session(name: str, dtype: int, projector: npt.NDArray[np.float32]) -> ort.InferenceSession:
    model = ir.to_proto(build(name, dtype, projector))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _lower(graph: ir.Graph) -> None:
    for node in [node for node in graph if node.op_type == "SelectTokens"]:
        op = OpBuilder(f"{node.name}.select_tokens")
        outputs = select_tokens.body(op, *node.inputs)
        for old, new in zip(node.outputs, outputs, strict=True):
            new.type, new.shape = old.type, old.shape
            if old.is_graph_output():
                new.name = old.name
        ir.convenience.replace_nodes_and_values(
            graph, node, [node], op.nodes, node.outputs, outputs
        )


def _every_input_is_read(graph: ir.Graph) -> None:
    for value in graph.inputs:
        assert value.uses(), f"{value.name} is not read: TensorRT refuses that"
