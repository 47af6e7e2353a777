"""The ONNX bodies of SlotAttention against the numpy reference."""

from typing import Any, Literal
from unittest import mock

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.interface.onnx import CONTRIB_DOMAIN, FLOAT, IR_VERSION, OPSET, element_type
from tightrope.interface.tensors import Rows
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.commit.reference import to_int8
from tightrope.plugins.description import rows_of
from tightrope.plugins.slot_attention import SCHEMA, body, body_blocks, lean
from tightrope.plugins.slot_attention.policies import POLICIES
from tightrope.plugins.slot_attention.reference import leave, slot_attention
from tightrope.plugins.slot_attention.scores import DEFAULT_SCORE, SCORES, PolicyNumbers
from tightrope.profiles.peak_memory import peak_memory_bytes, reset_peak_memory

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 8
ATTRIBUTES: tuple[dict[str, Any], ...] = (
    {},
    {"softcap": 3.0},
    {"window": 9},
    {"softcap": 2.0, "window": 4},
)
AnyForm = body.Form | Literal["lean"]
MOST_QUERIES = body_blocks.MOST_QUERIES
_sessions: dict[tuple[AnyForm, int, str, int, Rows], ort.InferenceSession] = {}


def session(
    form: AnyForm,
    attributes: int,
    score: str,
    queries: int = MOST_QUERIES,
    rows: Rows = SCHEMA.required,
) -> ort.InferenceSession:
    """queries: of a block, where the form attends in blocks. rows: the inputs that are given."""
    key = form, attributes, score, queries, rows
    if key not in _sessions:
        with mock.patch.object(body_blocks, "MOST_QUERIES", queries):
            _sessions[key] = _build(form, ATTRIBUTES[attributes], score, rows)
    return _sessions[key]


def _build(
    form: AnyForm, attributes: dict[str, Any], score: str, rows: Rows
) -> ort.InferenceSession:
    fixed = {"Hq": HEADS, "Hkv": KV_HEADS, "D": HEAD_DIM}
    values = [
        ir.Value(
            name=f"in_{row.name}",
            type=ir.TensorType(ir.DataType(element_type(row.dtype, FLOAT))),
            shape=ir.Shape([fixed.get(str(axis), axis) for axis in row.axes]),
        )
        for row in rows
    ]
    op = OpBuilder()
    shape = body.Fixed(HEADS, KV_HEADS, HEAD_DIM, FLOAT, HEAD_DIM**-0.5, **attributes)
    if form == "lean":
        outputs = lean.body(op, values, shape, score)
    else:
        outputs = body.body(op, values, shape, form, score)
    for value, row in zip(outputs, SCHEMA.outputs, strict=True):
        value.name = f"out_{row.name}"
        value.type = ir.TensorType(ir.DataType(element_type(row.dtype, FLOAT)))
    imports = {"": OPSET, CONTRIB_DOMAIN: 1}
    graph = ir.Graph(values, outputs, nodes=op.nodes, opset_imports=imports, name="body")
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION))
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def case(
    seed: int,
    n: int,
    s: int,
    capacity: int,
    occupied: int,
    policy: str,
    budget: int,
    uneven: int = 0,
) -> dict[str, Any]:
    """Inputs of a call that keeps the contract: slots older than the new tokens.

    uneven: how much less the second head may hold.
    """
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
    # As if some of the tokens were those of images, which see themselves whole.
    reach = query_position + rng.integers(0, 6, (n, s))
    reach = np.minimum(reach, query_position.max(1, keepdims=True))
    query_reach = np.where(query_position < 0, -1, reach).astype(np.int32)
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
        "kv_budget": np.array([budget, budget - uneven], np.int64),
        "policy": vector,
        "query_reach": query_reach,
    }


def run(
    form: AnyForm,
    inputs: dict[str, Any],
    attributes: int = 0,
    score: str = DEFAULT_SCORE,
    queries: int = MOST_QUERIES,
) -> list[Any]:
    feeds = {f"in_{name}": value for name, value in inputs.items()}
    given = [inputs.get(row.name) for row in SCHEMA.inputs]
    rows = rows_of(SCHEMA, given)
    outputs: list[Any] = session(form, attributes, score, queries, rows).run(None, feeds)
    return outputs


def expect(
    inputs: dict[str, Any], attributes: int = 0, score: str = DEFAULT_SCORE
) -> tuple[Any, ...]:
    scale = HEAD_DIM**-0.5
    return slot_attention(**inputs, scale=scale, score=score, **ATTRIBUTES[attributes])


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


SCORE_NAMES = st.sampled_from(sorted(SCORES))
KINDS = st.sampled_from(range(len(ATTRIBUTES)))


@settings(max_examples=150, deadline=None)
@given(calls, st.integers(2, 20), st.integers(0, 9), KINDS, SCORE_NAMES, st.integers(0, 3))
def test_general_body_equals_the_reference(
    call: dict[str, Any], s: int, room: int, attributes: int, score: str, uneven: int
) -> None:
    budget = max(6, call["occupied"] + room)
    uneven = min(uneven, budget - max(6, call["occupied"]))
    inputs = case(**call, s=s, capacity=budget, budget=budget, uneven=uneven)
    same(run("general", inputs, attributes, score), expect(inputs, attributes, score))


@pytest.mark.parametrize("form", ["step", "lean"])
@settings(max_examples=150, deadline=None)
@given(calls, st.integers(0, 5), KINDS, SCORE_NAMES, st.integers(0, 3))
def test_the_bodies_for_one_token_equal_the_general_one_and_the_reference(
    form: AnyForm, call: dict[str, Any], room: int, attributes: int, score: str, uneven: int
) -> None:
    budget = max(6, call["occupied"] + room)
    uneven = min(uneven, budget - max(6, call["occupied"]))
    inputs = case(**call, s=1, capacity=budget + 2, budget=budget, uneven=uneven)
    step = run(form, inputs, attributes, score)
    same(step, expect(inputs, attributes, score))
    same(step, tuple(run("general", inputs, attributes, score)))


@settings(max_examples=150, deadline=None)
@given(calls, st.integers(1, 20), st.integers(0, 9), KINDS, SCORE_NAMES)
def test_append_body_equals_the_general_one_where_nothing_has_to_leave(
    call: dict[str, Any], s: int, room: int, attributes: int, score: str
) -> None:
    capacity = call["occupied"] + s + room
    inputs = packed(case(**call, s=s, capacity=capacity, budget=max(6, capacity)))
    appended = run("append", inputs, attributes, score)
    same(appended, expect(inputs, attributes, score))
    same(appended, tuple(run("general", inputs, attributes, score)))


@settings(max_examples=150, deadline=None)
@given(calls, st.integers(1, 20), st.integers(6, 20), KINDS, SCORE_NAMES)
def test_append_and_a_ranking_afterwards_keep_what_the_general_body_keeps(
    call: dict[str, Any], s: int, budget: int, attributes: int, score: str
) -> None:
    budget = max(budget, call["occupied"])
    inputs = packed(case(**call, s=s, capacity=call["occupied"] + s, budget=budget))
    out, target, scores, position = expect(inputs, attributes, score)
    appended = run("append", inputs, attributes, score)
    np.testing.assert_allclose(appended[0], out, atol=2e-6)
    ordinals, worth = appended[3], appended[2]
    nothing_new = np.full((len(ordinals), KV_HEADS, 0), -1, np.int32)
    leaves = leave(
        worth,
        np.concatenate([ordinals, nothing_new], 2),
        inputs["query_position"],
        inputs["kv_budget"],
        PolicyNumbers(*inputs["policy"]),
    )
    for row, head in np.ndindex(ordinals.shape[:2]):
        left = ordinals[row, head][(ordinals[row, head] >= 0) & ~leaves[row, head]]
        kept = position[row, head][position[row, head] >= 0]
        assert sorted(left.tolist()) == sorted(kept.tolist())
        by_ordinal = dict(zip(ordinals[row, head], worth[row, head], strict=True))
        for slot, ordinal in enumerate(position[row, head]):
            if ordinal >= 0:
                np.testing.assert_allclose(
                    by_ordinal[ordinal], scores[row, head, slot], atol=5e-6, rtol=1e-5
                )
        assert (target[row, head] >= 0).sum() <= s


@settings(max_examples=150, deadline=None)
@given(calls, st.integers(1, 20), st.integers(-6, 9), KINDS, SCORE_NAMES, st.sampled_from([3, 64]))
def test_either_body_appends_where_there_is_room_and_ranks_where_there_is_none(
    call: dict[str, Any], s: int, room: int, attributes: int, score: str, queries: int
) -> None:
    capacity = max(6, call["occupied"], call["occupied"] + s + room)
    inputs = packed(case(**call, s=s, capacity=capacity, budget=capacity))
    chosen: body.Form = "append" if capacity >= call["occupied"] + s else "general"
    either = run("either", inputs, attributes, score, queries)
    same(either, tuple(run(chosen, inputs, attributes, score)))
    same(either, expect(inputs, attributes, score))


def packed(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same slots, the occupied ones first, as whoever owns them keeps them."""
    order = np.argsort(inputs["slot_position"] < 0, axis=-1, kind="stable")
    moved = {
        name: np.take_along_axis(inputs[name], order, 2) for name in ("slot_score", "slot_position")
    }
    for name in ("slot_key", "slot_value"):
        moved[name] = np.take_along_axis(inputs[name], order[..., None], 2)
    return inputs | moved


@pytest.mark.parametrize("form", ["general", "step", "append", "either"])
@settings(max_examples=60, deadline=None)
@given(calls, st.integers(1, 12), KINDS, SCORE_NAMES, st.integers(-9, 4))
def test_bodies_on_slots_in_int8_equal_the_reference_on_what_they_stand_for(
    form: AnyForm, call: dict[str, Any], s: int, attributes: int, score: str, size: int
) -> None:
    """size: of the slots, as a power of two."""
    s = 1 if form == "step" else s
    capacity = call["occupied"] + s + 1
    floats = packed(case(**call, s=s, capacity=capacity, budget=max(6, capacity)))
    inputs = floats | in_int8(floats, 2.0**size)
    assert inputs["slot_key"].dtype == np.int8
    same_in_size(run(form, inputs, attributes, score), expect(inputs, attributes, score), size)


def in_int8(inputs: dict[str, Any], size: float = 1.0) -> dict[str, Any]:
    """Slots of a call, `size` times as large, as int8 holds them."""
    held = {}
    for name in ("slot_key", "slot_value"):
        held[name], held[f"{name}_scale"] = to_int8(inputs[name] * np.float32(size))
    return held


def same_in_size(got: list[Any], want: tuple[Any, ...], size: int) -> None:
    """`same`, of slots that are 2**size times as large: logits are as much less exact."""
    larger = 2.0 ** max(0, 2 * size)
    np.testing.assert_allclose(got[0], want[0], atol=2e-6 * larger)
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_allclose(got[2], want[2], atol=5e-6 * larger, rtol=1e-5)
    np.testing.assert_array_equal(got[3], want[3])


@settings(max_examples=60, deadline=None)
@given(calls, st.integers(1, 8), KINDS)
def test_int8_moves_what_attention_gives_by_no_more_than_its_steps_allow(
    call: dict[str, Any], s: int, attributes: int
) -> None:
    """Of a logit: half a step for each number of a key, so e**(2 * that) of a weight."""
    capacity = call["occupied"] + s
    floats = packed(case(**call, s=s, capacity=capacity, budget=max(6, capacity)))
    held = in_int8(floats)
    out, moved = (expect(each, attributes)[0] for each in (floats, floats | held))
    logit = np.abs(floats["query"]).sum(-1).max() * held["slot_key_scale"].max(initial=0) / 2
    share = np.exp(2 * logit * HEAD_DIM**-0.5) - 1
    values = np.concatenate([floats["slot_value"], floats["value"]], 2)
    allowed = held["slot_value_scale"].max(initial=0) / 2 + 2 * share * np.abs(values).max()
    assert np.abs(moved - out).max() <= allowed + 1e-6


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


@pytest.mark.parametrize("used", [0, 3, 7, 12])
def test_one_token_may_find_fewer_slots_than_other_layers_have(used: int) -> None:
    inputs = packed(case(2, 3, 1, 12, min(used, 9), "h2o", 12))
    full = run("lean", inputs)
    inputs["slot_key"] = inputs["slot_key"][:, :, :used]
    inputs["slot_value"] = inputs["slot_value"][:, :, :used]
    cut = run("lean", inputs)
    same(cut, tuple(full))
    same(cut, expect(inputs))


def test_a_padding_row_of_one_token_attends_to_nothing_and_changes_nothing() -> None:
    inputs = case(3, 3, 1, 12, 8, "tova", 10)
    inputs["query_position"] = np.array([[30], [-1], [31]], np.int32)
    out, target, score, position = run("lean", inputs)
    assert not out[1].any() and out[0].any() and out[2].any()
    assert (target[1] == -1).all() and (target[[0, 2]] >= 0).all()
    np.testing.assert_array_equal(score[1], inputs["slot_score"][1])
    np.testing.assert_array_equal(position[1], inputs["slot_position"][1])


def test_attending_in_blocks_never_holds_the_weights_of_all_queries() -> None:
    tokens = 1024
    inputs = packed(case(4, 1, tokens, 2 * tokens, tokens, "h2o", 2 * tokens))
    whole_bytes = HEADS * tokens * 2 * tokens * 4
    taken = {}
    for form in ("general", "either"):
        session(form, 0, DEFAULT_SCORE)
        if not reset_peak_memory():
            pytest.skip("this system does not set the peak of memory back")
        before = peak_memory_bytes()
        results = run(form, inputs)
        after = peak_memory_bytes()
        assert before is not None and after is not None
        taken[form] = after - before
        same(results, expect(inputs))
    assert taken["either"] < whole_bytes / 2 < whole_bytes < taken["general"]
