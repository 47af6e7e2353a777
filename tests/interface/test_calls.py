"""A call is fed by the names of the tables, and what comes back is read by them."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.arrays import Array, Floats, Ordinals
from tightrope.interface.calls import Call, Selection, feeds, new_tokens, update_of
from tightrope.interface.tensors import Dims, Rows, decoder_inputs, decoder_outputs

DIMS = st.builds(
    Dims,
    num_hidden_layers=st.integers(1, 4),
    num_attention_heads=st.just(4),
    num_key_value_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.sampled_from([2, 8]),
    hidden_size=st.sampled_from([8, 24]),
    vocab_size=st.integers(5, 9),
)
LENGTHS = {"N": 2, "S": 7, "C": 6, "V": 4}


@dataclass
class Slots:
    keys: list[Array]
    values: list[Array]
    score: Floats
    position: Ordinals


def arrays(rows: Rows, lengths: dict[str, int]) -> dict[str, Array]:
    """Zeros of each row's shape; an axis with a number is as long as the one without, if unsaid."""
    kinds = {"activation": np.float32} | {k: np.dtype(k) for k in ("float32", "int32", "int64")}

    def length(axis: str | int) -> int:
        if isinstance(axis, int):
            return axis
        return lengths[axis] if axis in lengths else lengths[axis.rstrip("0123456789")]

    return {row.name: np.zeros([length(a) for a in row.axes], kinds[row.dtype]) for row in rows}


def call_of(dims: Dims, keeps: tuple[int, ...]) -> tuple[Call, Slots]:
    n, s, c = LENGTHS["N"], LENGTHS["S"], LENGTHS["C"]
    layers, heads = dims.num_hidden_layers, dims.num_key_value_heads
    selection = Selection(
        "some", np.zeros((n, LENGTHS["V"]), np.int64), keeps, tuple(range(1, 1 + len(keeps)))
    )
    call = Call(
        embeds=np.zeros((n, s, dims.hidden_size), np.float32),
        query_position=np.zeros((n, s), np.int32),
        rope_position=np.zeros((n, s), np.int64),
        kv_budget=np.zeros((layers, heads), np.int64),
        policy=np.zeros((layers, 8), np.float32),
        selection=selection if keeps else None,
    )
    used = [np.zeros((n, heads, i, dims.head_dim), np.float32) for i in range(layers)]
    shape = (layers, n, heads, c)
    return call, Slots(used, used, np.zeros(shape, np.float32), np.full(shape, -1, np.int32))


@given(DIMS, st.lists(st.integers(1, 4), max_size=3).map(tuple))
def test_a_call_feeds_every_input_of_its_graph_and_no_other(
    dims: Dims, keeps: tuple[int, ...]
) -> None:
    call, slots = call_of(dims, keeps)
    fed, rows = feeds(call, slots), decoder_inputs(dims, len(keeps))
    assert set(fed) == {row.name for row in rows}
    lengths = LENGTHS | {f"U{i}": i for i in range(dims.num_hidden_layers)}
    lengths |= {f"K{i}": keep for i, keep in enumerate(keeps)}
    wanted = arrays(rows, lengths)
    for name, array in fed.items():
        assert (array.shape, array.dtype) == (wanted[name].shape, wanted[name].dtype), name


@given(DIMS)
def test_stacked_outputs_are_read_as_arrays(dims: Dims) -> None:
    outputs = arrays(decoder_outputs(dims), LENGTHS)
    logits, update = update_of(outputs)
    assert logits is outputs["logits"]
    for name in ("key", "value", "target", "next_score", "next_position"):
        assert getattr(update, name) is outputs[name]


@given(DIMS, st.integers(1, 2))
def test_outputs_of_a_schedule_are_read_layer_by_layer(dims: Dims, stages: int) -> None:
    layers = range(dims.num_hidden_layers)
    lengths = LENGTHS | {f"S{i}": 7 - i for i in layers}
    outputs = arrays(decoder_outputs(dims, stages), lengths)
    logits, update = update_of(dict(sorted(outputs.items(), reverse=True)))
    assert logits is outputs["logits"]
    for name in ("key", "value", "target"):
        read = getattr(update, name)
        assert len(read) == len(layers)
        for i in layers:
            assert read[i] is outputs[f"{name}.{i}"]
            assert read[i].shape[2] == 7 - i
    assert update.next_score is outputs["next_score"]
    assert update.next_position is outputs["next_position"]


def test_every_layer_sees_all_tokens_of_a_call_without_a_schedule() -> None:
    assert new_tokens(3, 7, None).tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("layers", "keeps", "seen"),
    [
        ((2,), (3,), [10, 10, 8, 8, 8]),
        ((1, 3), (4, 1), [10, 9, 9, 6, 6]),
        ((1, 2), (5, 5), [10, 10, 10, 10, 10]),
    ],
)
def test_layers_from_a_stage_on_see_what_it_keeps(
    layers: tuple[int, ...], keeps: tuple[int, ...], seen: list[int]
) -> None:
    selection = Selection("some", np.zeros((1, 5), np.int64), keeps, layers)
    assert new_tokens(5, 10, selection).tolist() == seen
    call = Call(
        embeds=np.zeros((1, 10, 4), np.float32),
        query_position=np.zeros((1, 10), np.int32),
        rope_position=np.zeros((1, 10), np.int64),
        kv_budget=np.zeros((5, 2), np.int64),
        policy=np.zeros((5, 8), np.float32),
        selection=selection,
    )
    assert call.tokens_per_layer().tolist() == seen
