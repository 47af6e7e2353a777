"""What goes into a decoder graph by name, and what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tightrope
from tightrope.bundle import FORMAT, Manifest, Source, Stage
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.calls import Call, Selection, feeds, new_tokens, small_feeds, update_of
from tightrope.interface.names import GraphName
from tightrope.interface.onnx import OWN_OPSET
from tightrope.interface.tensors import (
    Dims,
    decoder_inputs,
    decoder_outputs,
    select_inputs,
    select_outputs,
    vision_outputs,
)
from tightrope.runtime.storage import NumpyStorage

SIGNALS = ("cls_attention", "tower_keys", "tower_states")
dims_of_all_kinds = st.builds(
    Dims,
    num_hidden_layers=st.integers(1, 4),
    num_attention_heads=st.just(4),
    num_key_value_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.integers(1, 5),
    hidden_size=st.integers(1, 9),
    vocab_size=st.integers(2, 9),
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
        place.astype(np.int64),
        np.full((layers, dims.num_key_value_heads), 7),
        np.zeros((layers, 8), np.float32),
        selection,
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


def manifest(vision: bool) -> Manifest:
    """Of a model of three layers, that sees or not."""
    info = VisionInfo(
        kind="clip",
        image_token_id=1,
        image_token="<image>",
        resolutions=(56, 28, 84),
        signals=SIGNALS,
        sizes={"patch_size": 14, "hidden_size": 8, "head_dim": 4},
    )
    return Manifest(
        format=FORMAT,
        family="test",
        dims=Dims(
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=4,
            hidden_size=16,
            vocab_size=32,
        ),
        positions="ordinal",
        opset_version=OWN_OPSET,
        precision="fp16",
        activations="float16",
        embeddings="float16",
        slots=256,
        prefill_chunk=64,
        minimum_onnxruntime="1.23",
        source=Source(name="x", revision="y", licence="z"),
        vision=info if vision else None,
        schedules={"two": (Stage(layer=1, share=2.0), Stage(layer=2, share=1.0))} if vision else {},
    )


def rows_of(name: GraphName, told: Manifest) -> tuple[Any, ...]:
    """All rows of a graph's inputs and outputs."""
    stages = len(told.schedules.get(name.method, ()))
    if name.role in ("prefill", "decode"):
        return (*decoder_inputs(told.dims, stages), *decoder_outputs(told.dims, stages))
    tower = told.tower
    assert tower is not None
    if name.role == "vision":
        return (*tower.input_rows(), *tower.output_rows(16))
    return (*select_inputs(tower.output_rows(16), True), *select_outputs(16))


GRAPHS = ("prefill", "prefill-two", "decode", "vision", "select-any")


@pytest.mark.parametrize(
    ("graph", "vision"),
    [*((graph, True) for graph in GRAPHS), ("prefill", False), ("decode", False)],
)
def test_every_free_axis_of_a_graphs_inputs_has_a_range(graph: str, vision: bool) -> None:
    name, told = GraphName.parse(f"standard.{graph}"), manifest(vision)
    ranges = told.ranges(name)
    for least, usual, most in ranges.values():
        assert 0 <= least <= usual <= most
    inputs = rows_of(name, told)[: -len(select_outputs(16))] if name.role == "select" else None
    for row in inputs or rows_of(name, told):
        free = [
            axis for axis in row.axes if (isinstance(axis, str) and axis[0] != "S") or axis == "S"
        ]
        assert [axis for axis in free if axis not in ranges] == [], row.name


@pytest.mark.parametrize("graph", GRAPHS)
def test_no_graph_names_two_tensors_alike(graph: str) -> None:
    rows = rows_of(GraphName.parse(f"standard.{graph}"), manifest(True))
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)


def test_every_axis_letter_is_in_the_legend() -> None:
    told = manifest(True)
    rows = [row for graph in GRAPHS for row in rows_of(GraphName.parse(f"standard.{graph}"), told)]
    rows += vision_outputs(8, 4, 16, SIGNALS)
    letters = {
        axis.rstrip("0123456789") for row in rows for axis in row.axes if isinstance(axis, str)
    }
    assert tightrope.__doc__ is not None
    legend = tightrope.__doc__.partition("Axes")[2].replace(",", " ").split()
    assert letters <= set(legend)
