"""The rows of every graph of a bundle, and the range of each of their axes."""

from collections.abc import Iterator

import pytest

import tightrope
from tightrope.bundle import FORMAT, Manifest, Source, Stage
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.names import GraphName, Role
from tightrope.interface.onnx import OWN_OPSET
from tightrope.interface.ranges import MOST_IMAGES, AxisRange, Ranges
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

STAGES = (Stage(layer=1, share=2.0), Stage(layer=2, share=1.0))
VISION = VisionInfo(
    kind="clip",
    image_token_id=4,
    image_token="<image>",
    resolutions=(336, 224, 560),
    signals=(CLS_ATTENTION, TOWER_KEYS, TOWER_STATES),
    sizes={"patch_size": 14, "hidden_size": 32, "head_dim": 8},
)


def manifest(vision: VisionInfo | None, slots: int = 2048, prefill_chunk: int = 1728) -> Manifest:
    return Manifest(
        format=FORMAT,
        family="llama" if vision is None else "llava",
        dims=Dims(
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            hidden_size=32,
            vocab_size=100,
        ),
        positions="ordinal",
        opset_version=OWN_OPSET,
        precision="fp16",
        activations="float16",
        embeddings="float16",
        slots=slots,
        prefill_chunk=prefill_chunk,
        minimum_onnxruntime="1.23",
        source=Source(name="tiny", revision="", licence=""),
        vision=vision,
        schedules={} if vision is None else {"two": STAGES},
    )


MANIFESTS = {
    "text": manifest(None),
    "text, small": manifest(None, 32, 16),
    "llava": manifest(VISION),
    "llava, few slots": manifest(VISION, 600),
}


def graphs(described: Manifest) -> Iterator[tuple[GraphName, Rows]]:
    """Name and rows of every graph of a bundle."""
    dims, roles = described.dims, ("decoder", "prefill", "decode")
    single: tuple[Role, ...] = roles  # type: ignore[assignment]  # a tuple of literals
    for role in single:
        yield GraphName("host", role), (*decoder_inputs(dims), *decoder_outputs(dims))
    for method, stages in described.schedules.items():
        rows = (*decoder_inputs(dims, len(stages)), *decoder_outputs(dims, len(stages)))
        yield GraphName("standard", "prefill", method), rows
        yield GraphName("host", "decoder", method), rows
    tower = described.tower
    if tower is not None:
        visual = tower.output_rows(dims.hidden_size)
        yield GraphName("host", "vision"), (*tower.input_rows(), *visual)
        for guided in (False, True):
            rows = (
                *select_inputs(visual, VISION.signals, guided),
                *select_outputs(dims.hidden_size),
            )
            yield GraphName("host", "select", "some"), rows


CASES = [
    pytest.param(described, name, rows, id=f"{kind} {name}{'+' * ('text_embeds' in str(rows))}")
    for kind, described in MANIFESTS.items()
    for name, rows in graphs(described)
]


@pytest.mark.parametrize(("described", "name", "rows"), CASES)
def test_every_axis_has_an_ordered_range(described: Manifest, name: GraphName, rows: Rows) -> None:
    ranges = described.ranges(name)
    for least, usual, most in ranges.values():
        assert 0 <= least <= usual <= most
    axes = {axis for row in rows for axis in row.axes if isinstance(axis, str)}
    # S of one layer follows from S and K: no input has it.
    asked = {axis for axis in axes if not (axis[0] == "S" and axis[1:].isdigit())}
    assert asked - set(ranges) == set()


@pytest.mark.parametrize(("described", "name", "rows"), CASES)
def test_no_graph_names_two_tensors_alike(described: Manifest, name: GraphName, rows: Rows) -> None:
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("described", "name", "rows"), CASES)
def test_every_axis_letter_is_in_the_legend(
    described: Manifest, name: GraphName, rows: Rows
) -> None:
    letters = {
        axis.rstrip("0123456789") for row in rows for axis in row.axes if isinstance(axis, str)
    }
    assert tightrope.__doc__ is not None
    legend = tightrope.__doc__.partition("Axes")[2].replace(",", " ").split()
    assert letters <= set(legend)


def lengths(ranges: Ranges, place: int) -> dict[str, int]:
    return {axis: bounds[place] for axis, bounds in ranges.items()}


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("kind", ["llava", "llava, few slots"])
def test_lengths_of_one_engine_fit_each_other(kind: str, place: int) -> None:
    described = MANIFESTS[kind]
    prefill = lengths(described.ranges(GraphName("standard", "prefill", "two")), place)
    assert prefill["K1"] <= prefill["K0"] <= prefill["V"] <= prefill["S"]
    assert prefill["U0"] <= prefill["C"]
    tower = lengths(described.ranges(GraphName("standard", "vision")), place)
    assert tower["P"] == tower["V"] + 1
    assert tower["V"] == (tower["H"] // 14) * (tower["W"] // 14)
    select = lengths(described.ranges(GraphName("standard", "select", "some")), place)
    assert select["K"] <= select["V"] == tower["V"]


def test_a_step_is_one_token_and_reads_all_slots() -> None:
    ranges = MANIFESTS["text"].ranges(GraphName("standard", "decode"))
    assert ranges["S"] == AxisRange(1, 1, 1)
    assert ranges["U0"] == ranges["C"] == AxisRange(1, 1024, 2048)
    prefill = MANIFESTS["text"].ranges(GraphName("standard", "prefill"))
    assert prefill["S"] == AxisRange(1, 1728, 1728)
    assert prefill["U3"].least == 0
    assert "U4" not in prefill


def test_the_images_of_a_call_stand_inside_one_chunk() -> None:
    small = manifest(VISION, prefill_chunk=3000)
    name = GraphName("host", "decoder", "two")
    assert small.ranges(name)["V"] == AxisRange(1, 576, 3000)
    wide = manifest(VISION, prefill_chunk=10_000)
    assert wide.ranges(name)["V"].most == MOST_IMAGES * 40**2
