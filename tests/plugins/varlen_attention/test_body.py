"""The ONNX body of VarlenAttention against the numpy reference."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.export.check.operators import refusals
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.parsers import OLDEST, load_parser
from tightrope.plugins.varlen_attention import SCHEMA, body
from tightrope.plugins.varlen_attention.reference import varlen_attention

Floats = npt.NDArray[np.float32]
SCALE = 0.3
HEADS, WIDTH = 3, 5


def built(longest: int, kind: int) -> ir.Model:
    types = {"activation": kind, "int32": 6}
    values = [
        ir.Value(
            name=row.name,
            type=ir.TensorType(ir.DataType(types[row.dtype])),
            shape=ir.Shape(row.axes),
        )
        for row in SCHEMA.inputs
    ]
    op = OpBuilder()
    query, key, value, bounds = values
    out = body.body(op, (query, key, value), bounds, SCALE, longest, kind)
    out.name, out.type = "out", ir.TensorType(ir.DataType(kind))
    graph = ir.Graph(values, [out], nodes=op.nodes, opset_imports={"": 21}, name="body")
    return ir.Model(graph, ir_version=10)


@cache
def session(longest: int, kind: int = 1) -> Any:
    model = ir.to_proto(built(longest, kind)).SerializeToString()
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"])


def case(seed: int, lengths: list[int]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shape = (1, HEADS, sum(lengths), WIDTH)
    drawn: dict[str, Any] = {
        name: rng.normal(size=shape).astype(np.float32) for name in ("query", "key", "value")
    }
    return drawn | {"cu_seqlens": np.cumsum([0, *lengths]).astype(np.int32)}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), st.integers(0, 10**6))
def test_both_forms_equal_the_reference(lengths: list[int], seed: int) -> None:
    given_ = case(seed, lengths)
    want = varlen_attention(**given_, scale=SCALE)
    for longest in (0, 9, 12):
        (got,) = session(longest).run(None, given_)
        np.testing.assert_allclose(got, want, atol=2e-6)


def test_no_token_hears_of_another_segment() -> None:
    given_ = case(1, [4, 6, 3])
    other = case(2, [4, 6, 3])
    for name in ("query", "key", "value"):
        other[name][:, :, 4:10] = given_[name][:, :, 4:10]
    for longest in (0, 6):
        (first,), (second,) = (session(longest).run(None, one) for one in (given_, other))
        np.testing.assert_array_equal(first[:, :, 4:10], second[:, :, 4:10])
        assert np.abs(first - second)[:, :, :4].max() > 0.1


@pytest.mark.parametrize("longest", [0, 6])
def test_half_precision_rounds_no_more_than_its_own_products(longest: int) -> None:
    given_ = case(3, [4, 6, 3])
    half = {
        name: value if name == "cu_seqlens" else value.astype(np.float16)
        for name, value in given_.items()
    }
    (got,) = session(longest, 10).run(None, half)
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, varlen_attention(**given_, scale=SCALE), atol=5e-3)


@pytest.mark.parametrize("longest", [0, 64])
@pytest.mark.parametrize("kind", [1, 10])
def test_the_oldest_tensorrt_parses_every_operator(longest: int, kind: int) -> None:
    assert refusals(built(longest, kind), load_parser(OLDEST)) == []
