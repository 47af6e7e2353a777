"""The ONNX bodies of SlotAttention against the numpy reference."""

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.slot_attention import SCHEMA, body
from tightrope.plugins.slot_attention.policies import POLICIES
from tightrope.plugins.slot_attention.reference import slot_attention

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 8
TYPES = {"T": 1, "float32": 1, "int32": 6, "int64": 7}
ATTRIBUTES: tuple[dict[str, Any], ...] = (
    {},
    {"softcap": 3.0},
    {"window": 9},
    {"softcap": 2.0, "window": 4},
)
_sessions: dict[tuple[str, int], ort.InferenceSession] = {}


def session(face: str, attributes: int) -> ort.InferenceSession:
    if (face, attributes) not in _sessions:
        _sessions[face, attributes] = _build(face, ATTRIBUTES[attributes])
    return _sessions[face, attributes]


def _build(face: str, attributes: dict[str, Any]) -> ort.InferenceSession:
    fixed = {"Hq": HEADS, "Hkv": KV_HEADS, "D": HEAD_DIM, "8": 8, "1": 1}
    values = [
        ir.Value(
            name=f"in_{argument.name}",
            type=ir.TensorType(ir.DataType(TYPES[argument.dtype])),
            shape=ir.Shape([fixed.get(axis, axis) for axis in argument.axes]),
        )
        for argument in SCHEMA.inputs
    ]
    op = OpBuilder()
    dims = body.Dims(
        q_heads=HEADS,
        kv_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        dtype=1,
        **{"scale": HEAD_DIM**-0.5, "softcap": 0.0, "window": 0, "pool_kernel": 5} | attributes,
    )
    common = body.shared(op, values[7], values[9], KV_HEADS)
    query, key, value, slot_key, slot_value, slot_score, slot_position = values[:7]
    attend, keep = (body.attend_one, body.keep_one) if face == "step" else (body.attend, body.keep)
    rows = [query, key, value, slot_key, slot_value, slot_position]
    done = attend(op, rows, op.dim(slot_score, 2), dims, common)
    kept = keep(op, [done.mass, key, slot_score, slot_position, values[8]], dims, common)
    outputs = (done.out, *kept)
    for value, argument in zip(outputs, SCHEMA.outputs, strict=True):
        value.name = f"out_{argument.name}"
        value.type = ir.TensorType(ir.DataType(TYPES[argument.dtype]))
    graph = ir.Graph(values, outputs, nodes=op.nodes, opset_imports={"": 21}, name="body")
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def case(
    seed: int, n: int, s: int, capacity: int, occupied: int, policy: str, budget: int
) -> dict[str, Any]:
    """Inputs of a call that keeps the contract: slots older than the new tokens."""
    rng = np.random.default_rng(seed)
    float32 = np.float32
    position = np.full((n, KV_HEADS, capacity), -1, np.int32)
    for row in range(n):
        for head in range(KV_HEADS):
            slots = rng.permutation(capacity)[:occupied]
            position[row, head, slots] = rng.permutation(occupied + 9)[:occupied]
    filled = position >= 0
    shape = (n, KV_HEADS, capacity)
    new = np.sort(rng.permutation(s + 3)[:s]) + occupied + 9
    query_position = np.tile(new, (n, 1)).astype(np.int32)
    for row in range(n):
        query_position[row, s - rng.integers(0, s + 1 if row else 1) :] = -1
    if s > 1:
        query_position[0] = new
    vector = POLICIES[policy].vector(2, 3)
    return {
        "query": rng.normal(size=(n, HEADS, s, HEAD_DIM)).astype(float32),
        "key": rng.normal(size=(n, KV_HEADS, s, HEAD_DIM)).astype(float32),
        "value": rng.normal(size=(n, KV_HEADS, s, HEAD_DIM)).astype(float32),
        "slot_key": (rng.normal(size=(*shape, HEAD_DIM)) * filled[..., None]).astype(float32),
        "slot_value": (rng.normal(size=(*shape, HEAD_DIM)) * filled[..., None]).astype(float32),
        "slot_score": (rng.random(shape) * filled).astype(float32),
        "slot_position": position,
        "query_position": query_position,
        "budget": np.array([budget], np.int64),
        "policy": vector,
    }


def run(face: str, inputs: dict[str, Any], attributes: int = 0) -> list[Any]:
    feeds = {f"in_{name}": value for name, value in inputs.items()}
    outputs: list[Any] = session(face, attributes).run(None, feeds)
    return outputs


def expect(inputs: dict[str, Any], attributes: int = 0) -> tuple[Any, ...]:
    return slot_attention(**inputs, scale=HEAD_DIM**-0.5, **ATTRIBUTES[attributes])


def same(got: list[Any], want: tuple[Any, ...]) -> None:
    np.testing.assert_allclose(got[0], want[0], atol=2e-6)
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_allclose(got[2], want[2], atol=5e-6, rtol=1e-5)
    np.testing.assert_array_equal(got[3], want[3])


calls = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "n": st.integers(1, 3),
        "occupied": st.integers(0, 14),
        "policy": st.sampled_from(sorted(POLICIES)),
    }
)


@settings(max_examples=150, deadline=None)
@given(calls, st.integers(2, 20), st.integers(0, 9), st.sampled_from(range(len(ATTRIBUTES))))
def test_general_body_equals_the_reference(
    call: dict[str, Any], s: int, room: int, attributes: int
) -> None:
    budget = max(6, call["occupied"] + room)
    inputs = case(**call, s=s, capacity=max(budget, call["occupied"]), budget=budget)
    same(run("general", inputs, attributes), expect(inputs, attributes))


@settings(max_examples=150, deadline=None)
@given(calls, st.integers(0, 5), st.sampled_from(range(len(ATTRIBUTES))))
def test_step_body_equals_the_general_one_and_the_reference(
    call: dict[str, Any], room: int, attributes: int
) -> None:
    budget = max(6, call["occupied"] + room)
    inputs = case(**call, s=1, capacity=budget + 2, budget=budget)
    step = run("step", inputs, attributes)
    same(step, expect(inputs, attributes))
    same(step, tuple(run("general", inputs, attributes)))


@pytest.mark.parametrize("used", [0, 3, 7])
def test_slots_past_the_last_occupied_one_need_not_be_handed_over(used: int) -> None:
    inputs = case(1, 2, 5, 12, 7, "h2o", 12)
    for row in range(2):
        for head in range(KV_HEADS):
            inputs["slot_position"][row, head] = [*range(used), *[-1] * (12 - used)]
    inputs["slot_score"] *= inputs["slot_position"] >= 0
    full = run("general", inputs)
    inputs["slot_key"] = inputs["slot_key"][:, :, :used]
    inputs["slot_value"] = inputs["slot_value"][:, :, :used]
    cut = run("general", inputs)
    same(cut, tuple(full))
    same(cut, expect(inputs))
