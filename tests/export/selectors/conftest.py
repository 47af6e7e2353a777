"""Runs a selector's graph in ONNX Runtime, own ops lowered, and its reference beside it."""

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tightrope.arrays import Array, Floats, Indices
from tightrope.export.selectors import SELECTORS, Image
from tightrope.interface.onnx import FLOAT, FLOAT16, IR_VERSION, OPSET, element_type
from tightrope.interface.tensors import (
    CLS_ATTENTION,
    KEEP_RAMP,
    TEXT_EMBEDS,
    VISUAL_EMBEDS,
    TensorSpec,
    select_inputs,
    select_outputs,
    vision_outputs,
)
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.select_tokens import body as select_tokens

WIDTH, KEY_WIDTH, EMBED = 16, 4, 16  # Dv, dh, E: cosines of +-1 rows of 16 are exact
DTYPES = {FLOAT: np.float32, FLOAT16: np.float16}

Scene = dict[str, Any]
"""Inputs of all images of a call by name, float32."""


@dataclass(frozen=True)
class LinearContext:
    """A projector of one product."""

    activation: int
    weight: Array

    def project(self, op: OpBuilder, states: ir.Value) -> ir.Value:
        return op.MatMul(states, self.weight)


@pytest.fixture(scope="session")
def projector() -> Floats:
    rng = np.random.default_rng(7)
    return rng.normal(size=(WIDTH, EMBED)).astype(np.float32)


@pytest.fixture(scope="session")
def scene_of(projector: Floats) -> Callable[..., Scene]:
    """(name, rng, images, available) -> what `scene` in the method's own test file draws."""
    files = Path(__file__).parent
    scenes = {name: runpy.run_path(str(files / f"test_{name}.py"))["scene"] for name in SELECTORS}
    return lambda name, *size: scenes[name](*size, projector)


@pytest.fixture(scope="session")
def images_of(projector: Floats) -> Callable[[Scene], list[Image]]:
    """What the reference reads, image by image."""

    def split(scene: Scene) -> list[Image]:
        shared = {name: value for name, value in scene.items() if name == TEXT_EMBEDS}
        return [
            Image(
                **{name: value[i] for name, value in scene.items() if name not in shared},
                **shared,
                project=lambda states: states @ projector,
            )
            for i in range(len(scene[VISUAL_EMBEDS]))
        ]

    return split


Run = Callable[..., tuple[Indices, Array]]


@pytest.fixture(scope="session")
def run(projector: Floats) -> Run:
    """(name, scene, keep, activation) -> index, embeds."""
    sessions: dict[tuple[str, int], ort.InferenceSession] = {}

    def run_selector(
        name: str, scene: Scene, keep: int, activation: int = FLOAT
    ) -> tuple[Indices, Array]:
        if (name, activation) not in sessions:
            sessions[name, activation] = _session(build(name, activation, projector))
        # The values of the ramp are never read.
        feeds = {**scene, KEEP_RAMP: np.full(keep, -5, np.int64)}
        index, embeds = sessions[name, activation].run(None, feeds)
        return index, embeds

    return run_selector


@pytest.fixture(scope="session")
def agree(run: Run, images_of: Callable[[Scene], list[Image]]) -> Run:
    """`run` that asserts that the graph and the reference choose the same."""

    def run_both(
        name: str, scene: Scene, keep: int, activation: int = FLOAT
    ) -> tuple[Indices, Array]:
        given = {
            key: value if key == CLS_ATTENTION else value.astype(DTYPES[activation])
            for key, value in scene.items()
        }
        index, embeds = run(name, given, keep, activation)
        assert index.dtype == np.int64 and embeds.dtype == DTYPES[activation]
        rounded = {key: value.astype(np.float32) for key, value in given.items()}
        want = [SELECTORS[name].reference(image, keep) for image in images_of(rounded)]
        np.testing.assert_array_equal(index, np.stack([choice.index for choice in want]))
        kept = np.stack([choice.embeds for choice in want])
        if SELECTORS[name].merges:
            limit = 2e-5 if activation == FLOAT else 0.1
            np.testing.assert_allclose(embeds, kept, atol=limit)
        else:
            np.testing.assert_array_equal(embeds, kept)
        return index, embeds

    return run_both


@pytest.fixture(scope="session")
def standard_graph(projector: Floats) -> Callable[[str], ir.Model]:
    """name -> the graph in half precision, as a board gets it."""
    return lambda name: build(name, FLOAT16, projector)


def build(name: str, activation: int, projector: Floats) -> ir.Model:
    """The graph of one selector with nothing but standard operators."""

    def empty(row: TensorSpec) -> ir.Value:
        dtype = ir.DataType(element_type(row.dtype, activation))
        return ir.Value(name=row.name, type=ir.TensorType(dtype), shape=ir.Shape(row.axes))

    selector, op = SELECTORS[name], OpBuilder()
    visual = vision_outputs(WIDTH, KEY_WIDTH, EMBED, selector.signals)
    given = {
        row.name: empty(row)
        for row in select_inputs(visual, selector.signals, selector.text_guided)
    }
    context = LinearContext(activation, projector.astype(DTYPES[activation]))
    outputs = selector.body(op, given, context)
    for value, row in zip(outputs, select_outputs(EMBED), strict=True):
        promised = empty(row)
        value.name, value.type, value.shape = promised.name, promised.type, promised.shape
    graph = ir.Graph(
        given.values(), outputs, nodes=op.nodes, opset_imports={"": OPSET}, name="select"
    )
    _lower(graph)
    return ir.Model(graph, ir_version=IR_VERSION)


def _session(model: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
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
