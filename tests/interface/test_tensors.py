"""The tables of inputs and outputs: no name twice, every axis explained."""

from itertools import chain

import pytest

import tightrope
from tightrope.inputs.prepare import Tower, create_tower
from tightrope.inputs.vision import VisionInfo
from tightrope.interface import tensors
from tightrope.interface.tensors import (
    CLS_ATTENTION,
    TOWER_KEYS,
    TOWER_STATES,
    Dims,
    Rows,
    decoder_inputs,
    decoder_outputs,
    select_inputs,
    select_outputs,
)
from tightrope.plugins import select_tokens, slot_attention

DIMS = Dims(
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    hidden_size=32,
    vocab_size=100,
)
SIGNALS = (CLS_ATTENTION, TOWER_KEYS, TOWER_STATES)


def tower() -> Tower:
    return create_tower(
        VisionInfo(
            kind="clip",
            image_token_id=4,
            image_token="<image>",
            resolutions=(56,),
            signals=SIGNALS,
            sizes={"patch_size": 14, "hidden_size": 8, "head_dim": 4},
        )
    )


def graphs() -> dict[str, Rows]:
    """Rows of every kind of graph, inputs and outputs together."""
    visual = tower().output_rows(DIMS.hidden_size)
    found = {"vision": (*tower().input_rows(), *visual)}
    for stages in range(3):
        found[f"decoder with {stages} stages"] = (
            *decoder_inputs(DIMS, stages),
            *decoder_outputs(DIMS, stages),
        )
    for guided in (False, True):
        rows = select_inputs(visual, guided)
        found[f"select, guided {guided}"] = (*rows, *select_outputs(DIMS.hidden_size))
    return found


GRAPHS = graphs()


@pytest.mark.parametrize("graph", GRAPHS)
def test_no_name_stands_twice_in_a_graph(graph: str) -> None:
    names = [row.name for row in GRAPHS[graph]]
    assert len(names) == len(set(names))


def test_the_constants_are_names_of_rows_and_no_two_are_alike() -> None:
    constants = [
        value
        for name, value in vars(tensors).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, str)
    ]
    rows = {row.name.partition(".")[0] for row in chain.from_iterable(GRAPHS.values())}
    assert len(constants) == len(set(constants))
    assert set(constants) <= rows


def explained(text: str) -> set[str]:
    """Names of the axes that the package's docstring lists, in columns of name and meaning."""
    _, _, table = text.partition("Axes, in docstrings and in graphs:")
    words: set[str] = set()
    for line in table.splitlines():
        for column in line.strip().split("  "):
            name, _, meaning = column.strip().partition(" ")
            if meaning or column.strip():
                words.add(name)
    return words


@pytest.mark.parametrize("graph", [*GRAPHS, "own ops"])
def test_every_axis_of_a_row_is_explained_in_the_package(graph: str) -> None:
    own: Rows = tuple(
        row
        for schema in (slot_attention.SCHEMA, select_tokens.SCHEMA)
        for row in (*schema.inputs, *schema.outputs)
    )
    axes = {
        axis.rstrip("0123456789")
        for row in GRAPHS.get(graph, own)
        for axis in row.axes
        if isinstance(axis, str) and axis.isalnum()
    }
    assert axes - explained(tightrope.__doc__ or "") == set()


def test_stages_number_what_differs_between_layers_and_nothing_else() -> None:
    plain = {row.name for row in decoder_inputs(DIMS)}
    staged = {row.name for row in decoder_inputs(DIMS, 2)}
    assert staged - plain == {"visual_index", "keep_ramp.0", "keep_ramp.1"}
    assert plain < staged
    before = {row.name: row.axes for row in decoder_outputs(DIMS)}
    after = {row.name: row.axes for row in decoder_outputs(DIMS, 2)}
    assert before["key"] == (3, "N", 2, "S", 8)
    assert [after[f"key.{i}"] for i in range(3)] == [("N", 2, f"S{i}", 8) for i in range(3)]
    assert set(before) & set(after) == {"logits", "next_score", "next_position"}
