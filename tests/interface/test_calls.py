"""What goes into a decoder graph by name, and what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.inputs.positions import following
from tightrope.interface.calls import (
    Call,
    Selection,
    feeds,
    new_tokens,
    no_levels,
    small_feeds,
    update_of,
)
from tightrope.interface.tensors import Dims, decoder_inputs, decoder_outputs
from tightrope.runtime.storage import NumpyStorage

dims_of_all_kinds = st.builds(
    Dims,
    num_hidden_layers=st.integers(1, 4),
    num_attention_heads=st.just(4),
    num_key_value_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.integers(1, 5),
    hidden_size=st.integers(1, 9),
    vocab_size=st.integers(2, 9),
    rope_axes=st.sampled_from([1, 3]),
    deepstack=st.integers(0, 2),
    reach=st.booleans(),
    conv_layers=st.sampled_from([0, 2]),
    conv_inputs=st.just(2),
)


def call_of(dims: Dims, rows: int, length: int, stages: int) -> Call:
    layers = dims.num_hidden_layers
    place = np.zeros((rows, length), np.int32)
    selection = None
    if stages:
        keeps, at = tuple(range(stages, 0, -1)), tuple(range(stages))
        selection = Selection("staged", np.zeros((rows, stages + 1), np.int64), keeps, at)
    return Call(
        np.zeros((rows, length, dims.hidden_size), np.float32),
        place,
        following(place, 0, dims.rope_axes),
        np.full((layers, dims.num_key_value_heads), 7),
        np.zeros((layers, 8), np.float32),
        selection,
        no_levels(dims, rows, length),
        place if dims.reach else None,
    )


@given(dims_of_all_kinds, st.integers(1, 3), st.integers(1, 6), st.integers(0, 3))
def test_a_call_feeds_exactly_the_inputs_of_the_table(
    dims: Dims, rows: int, length: int, stages: int
) -> None:
    storage = NumpyStorage(dims, rows, np.full(dims.num_hidden_layers, 5))
    named = feeds(call_of(dims, rows, length, stages), storage.views(0))
    table = decoder_inputs(dims, stages)
    assert set(named) == {row.name for row in table}
    lengths: dict[Any, int] = {"N": rows, "S": length, "C": 5, "V": stages + 1}
    for row in table:
        array = named[row.name]
        assert array.ndim == len(row.axes), row.name
        for axis, size in zip(row.axes, array.shape, strict=True):
            assert size == (axis if isinstance(axis, int) else lengths.get(axis, size)), row.name
        kinds = {"activation": "float32"}
        assert array.dtype == kinds.get(row.dtype, row.dtype), row.name


def test_keep_travels_as_a_length() -> None:
    dims = Dims(
        num_hidden_layers=3,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=1,
        hidden_size=1,
        vocab_size=2,
    )
    named = small_feeds(call_of(dims, 1, 9, 2))
    assert [len(named[f"keep_ramp.{stage}"]) for stage in range(2)] == [2, 1]


@given(st.integers(1, 5), st.integers(8, 20), st.lists(st.integers(1, 6), max_size=3))
def test_later_layers_see_what_the_stages_before_them_left(
    layers: int, length: int, keeps: list[int]
) -> None:
    keeps = sorted(keeps, reverse=True)[:layers]
    at = tuple(range(len(keeps)))
    selection = Selection("staged", np.zeros((1, 7), np.int64), tuple(keeps), at)
    seen = new_tokens(layers, length, selection if keeps else None)
    for layer in range(layers):
        left = keeps[min(layer, len(keeps) - 1)] if keeps else 7
        assert seen[layer] == length - 7 + left


@pytest.mark.parametrize("stages", [0, 1])
@given(dims=dims_of_all_kinds)
def test_an_update_holds_every_output_stacked_or_by_layer(stages: int, dims: Dims) -> None:
    rng = np.random.default_rng(0)
    table = decoder_outputs(dims, stages)
    outputs: dict[str, Any] = {
        row.name: rng.random([2 if isinstance(a, str) else a for a in row.axes]) for row in table
    }
    logits, update = update_of(outputs)
    assert logits is outputs["logits"]
    assert update.next_score is outputs["next_score"]
    if stages:
        assert [id(key) for key in update.key] == [
            id(outputs[f"key.{i}"]) for i in range(dims.num_hidden_layers)
        ]
    else:
        assert update.target is outputs["target"]
