"""The ONNX body of SelectTokens against the numpy reference."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.select_tokens import SCHEMA, body
from tightrope.plugins.select_tokens.reference import select_tokens

TYPES = {"float32": 1, "int64": 7}
Arrays = tuple[npt.NDArray[Any], ...]


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    values = [
        ir.Value(
            name=f"in_{argument.name}",
            type=ir.TensorType(ir.DataType(TYPES[argument.dtype])),
            shape=ir.Shape(argument.axes),
        )
        for argument in SCHEMA.inputs
    ]
    op = OpBuilder()
    outputs = body.body(op, *values)
    for value, argument in zip(outputs, SCHEMA.outputs, strict=True):
        value.name = f"out_{argument.name}"
        value.type = ir.TensorType(ir.DataType(TYPES[argument.dtype]))
    graph = ir.Graph(values, outputs, nodes=op.nodes, opset_imports={"": 21}, name="body")
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run(session: Any, score: Any, candidates: Any, keep: int) -> Arrays:
    feeds = {"in_score": score, "in_candidates": candidates}
    # The values of the ramp are never read.
    return tuple(session.run(None, {**feeds, "in_keep_ramp": np.full(keep, -5, np.int64)}))


def same(got: Arrays, want: Arrays) -> None:
    for mine, theirs in zip(got, want, strict=True):
        assert mine.dtype == np.int64
        np.testing.assert_array_equal(mine, theirs)


def case(seed: int, n: int, s: int, v: int, levels: int) -> tuple[Any, Any]:
    """Scores with `levels` different values, so that few levels mean many ties."""
    rng = np.random.default_rng(seed)
    score = (rng.integers(0, levels, size=(n, s)) - levels / 2).astype(np.float32)
    candidates = np.stack([np.sort(rng.permutation(s)[:v]) for _ in range(n)])
    return score, candidates


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3), st.integers(1, 30), st.data(), st.integers(0, 10**6))
def test_the_body_equals_the_reference_for_every_keep(
    session: Any, n: int, s: int, data: Any, seed: int
) -> None:
    v = data.draw(st.integers(1, s))
    levels = data.draw(st.sampled_from([1, 3, 1000]))
    score, candidates = case(seed, n, s, v, levels)
    for keep in range(1, v + 1):
        want = select_tokens(score, candidates, np.arange(keep))
        same(run(session, score, candidates, keep), want)


def test_equal_scores_keep_the_lower_index(session: Any) -> None:
    score, candidates = np.zeros((1, 9), np.float32), np.asarray([[2, 3, 4, 6, 7]])
    index, places = run(session, score, candidates, 3)
    assert index[0].tolist() == [0, 1, 2, 3, 4, 5, 8]
    assert places[0].tolist() == [2, 3, 4]


def test_keeping_all_keeps_every_token_in_order(session: Any) -> None:
    score, candidates = case(1, 2, 12, 5, 100)
    index, places = run(session, score, candidates, 5)
    np.testing.assert_array_equal(index, np.tile(np.arange(12), (2, 1)))
    np.testing.assert_array_equal(places, candidates)


def test_without_an_image_one_token_is_its_own_candidate(session: Any) -> None:
    for length in (1, 7):
        score = np.random.default_rng(0).normal(size=(2, length)).astype(np.float32)
        index, places = run(session, score, np.zeros((2, 1), np.int64), 1)
        np.testing.assert_array_equal(index, np.tile(np.arange(length), (2, 1)))
        assert places.tolist() == [[0], [0]]


def test_the_places_serve_as_candidates_of_the_next_stage(session: Any) -> None:
    score, candidates = case(2, 2, 20, 12, 1000)
    index, places = run(session, score, candidates, 6)
    kept = np.take_along_axis(index, places, 1)
    assert np.isin(kept, candidates).all()
    later = np.take_along_axis(score, index, 1)
    again, _ = run(session, later, places, 3)
    once, _ = run(session, score, candidates, 3)
    np.testing.assert_array_equal(np.take_along_axis(index, again, 1), once)
