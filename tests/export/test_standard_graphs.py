"""The graphs for TensorRT, run in ONNX Runtime, against the graphs for a host.

All inputs are drawn by the interface's own table of rows, so that a new input is tested too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from tightrope.bundle import Bundle
from tightrope.export.selectors import SELECTORS
from tightrope.interface.names import GraphName
from tightrope.interface.tensors import Rows, decoder_inputs, decoder_outputs
from tightrope.plugins.parsers import load_parser, parser_versions
from tightrope.plugins.slot_attention.policies import POLICIES

Array = npt.NDArray[Any]
Find = Callable[[str], Path]
CAPACITY, OCCUPIED = 40, 33
ROOM = CAPACITY - OCCUPIED
TOLERANCE = 2e-5


class Graphs:
    """Sessions of one bundle's graphs."""

    def __init__(self, path: Path) -> None:
        self.bundle = Bundle.open(path)
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def run(self, name: str, feeds: dict[str, Array]) -> dict[str, Array]:
        """Outputs by name; `feeds` may hold more than the graph reads."""
        session = self._session(name)
        read = {item.name: feeds[item.name] for item in session.get_inputs()}
        names = [item.name for item in session.get_outputs()]
        return dict(zip(names, session.run(names, read), strict=True))

    def axes(self, name: str) -> dict[str, list[Any]]:
        """Of every input and output."""
        session = self._session(name)
        return {item.name: item.shape for item in (*session.get_inputs(), *session.get_outputs())}

    def types(self, name: str) -> dict[str, str]:
        """Of every input and output."""
        session = self._session(name)
        return {item.name: item.type for item in (*session.get_inputs(), *session.get_outputs())}

    def _session(self, name: str) -> onnxruntime.InferenceSession:
        if name not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = 1
            self._sessions[name] = onnxruntime.InferenceSession(
                str(self.bundle.graph(GraphName.parse(name))),
                options,
                providers=["CPUExecutionProvider"],
            )
        return self._sessions[name]


@pytest.fixture(scope="module")
def graphs(bundle: Find) -> Graphs:
    return Graphs(bundle("llava"))


def decoder_feeds(
    graphs: Graphs, rows: int, length: int, policy: str, used: int = CAPACITY, seed: int = 0
) -> dict[str, Array]:
    """A call of `length` tokens on slots of which 33 are taken; the second row is padded."""
    dims, rng = graphs.bundle.manifest.dims, np.random.default_rng(seed)
    heads, width = dims.num_key_value_heads, dims.head_dim
    place = np.tile(np.arange(60, 60 + length), (rows, 1))
    if length > 1:
        place[1:, -2:] = -1
    feeds: dict[str, Array] = {
        "inputs_embeds": rng.normal(size=(rows, length, dims.hidden_size)).astype(np.float32),
        "query_position": place.astype(np.int32),
        "rope_position": np.maximum(place, 0).astype(np.int64),
        "kv_budget": np.full((dims.num_hidden_layers, heads), 36, np.int64),
        "policy": np.tile(POLICIES[policy].vector(2, 4), (dims.num_hidden_layers, 1)),
    }
    scores, positions = [], []
    for layer in range(dims.num_hidden_layers):
        key, value = rng.normal(size=(2, rows, heads, CAPACITY, width)).astype(np.float32)
        position = np.full((rows, heads, CAPACITY), -1, np.int32)
        for row in range(rows):
            for head in range(heads):
                position[row, head, :OCCUPIED] = rng.permutation(60)[:OCCUPIED]
        taken = position >= 0
        feeds[f"slot_key.{layer}"] = (key * taken[..., None])[:, :, :used]
        feeds[f"slot_value.{layer}"] = (value * taken[..., None])[:, :, :used]
        scores.append(rng.random(position.shape).astype(np.float32) * taken)
        positions.append(position)
    return feeds | {"slot_score": np.stack(scores), "slot_position": np.stack(positions)}


def empty_behind(feeds: dict[str, Array], used: int) -> None:
    """Leave only the first `used` slots occupied."""
    feeds["slot_position"][..., used:] = -1
    feeds["slot_score"][..., used:] = 0


def same(ours: dict[str, Array], theirs: dict[str, Array]) -> None:
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype and value.shape == theirs[name].shape, name
        if value.dtype.kind == "f":
            limit = TOLERANCE * max(1, float(np.abs(theirs[name]).max(initial=0)))
            np.testing.assert_allclose(value, theirs[name], atol=limit, rtol=0, err_msg=name)
        else:
            np.testing.assert_array_equal(value, theirs[name], name)


@pytest.mark.parametrize("used", [CAPACITY, OCCUPIED])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_prefill_equals_the_host_decoder(policy: str, used: int, graphs: Graphs) -> None:
    feeds = decoder_feeds(graphs, 2, ROOM, policy, used)
    same(graphs.run("standard.prefill", feeds), graphs.run("host.decoder", feeds))


def test_prefill_takes_a_cache_without_a_single_slot_in_use(graphs: Graphs) -> None:
    feeds = decoder_feeds(graphs, 1, 11, "h2o", 0)
    feeds["slot_position"][:] = -1
    feeds["slot_score"][:] = 0
    same(graphs.run("standard.prefill", feeds), graphs.run("host.decoder", feeds))


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_decode_equals_the_host_decoder_and_prefill(policy: str, graphs: Graphs) -> None:
    feeds = decoder_feeds(graphs, 3, 1, policy)
    feeds["query_position"][2] = -1
    same(graphs.run("standard.decode", feeds), graphs.run("host.decoder", feeds))


@pytest.mark.parametrize("length", [ROOM + 1, 11])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_where_slots_do_not_suffice_the_host_decoder_gives_them_up_inside(
    policy: str, length: int, graphs: Graphs
) -> None:
    feeds = decoder_feeds(graphs, 2, length, policy)
    tight = graphs.run("host.decoder", feeds)
    assert ((tight["next_position"] >= 0).sum(-1) == 36).all()
    # The same with room for all: then nothing leaves, and the best 36 are those that stayed.
    pad = ((0, 0), (0, 0), (0, 0), (0, length))
    wide = feeds | {
        "slot_score": np.pad(feeds["slot_score"], pad),
        "slot_position": np.pad(feeds["slot_position"], pad, constant_values=-1),
    }
    roomy = graphs.run("host.decoder", wide)
    np.testing.assert_allclose(tight["logits"], roomy["logits"], atol=1e-4)
    newest = feeds["query_position"].max(1)[None, :, None, None]
    position, score = roomy["next_position"], roomy["next_score"]
    safe = (position < 2) | (position > newest - 4)
    rank_by = np.where(position < 0, -np.inf, np.where(safe, np.inf, score))
    best = np.argsort(rank_by, -1, kind="stable")[..., -36:]
    kept = np.sort(np.take_along_axis(position, best, -1), -1)
    stayed = np.sort(tight["next_position"], -1)[..., -36:]
    np.testing.assert_array_equal(kept, stayed)


def test_decoder_graphs_have_the_inputs_and_outputs_of_the_table(graphs: Graphs) -> None:
    dims = graphs.bundle.manifest.dims
    for name, stages in (("standard.prefill", 0), ("standard.prefill-fastv", 1)):
        rows: Rows = (*decoder_inputs(dims, stages, False), *decoder_outputs(dims, stages))
        found = graphs.axes(name)
        assert list(found) == [row.name for row in rows]
        for row in rows:
            assert found[row.name] == list(row.axes), row.name


@pytest.mark.parametrize("keep", [1, 3, 6])
def test_prefill_with_a_schedule_equals_the_hosts(keep: int, graphs: Graphs) -> None:
    feeds = decoder_feeds(graphs, 2, 14, "snapkv", 20)
    empty_behind(feeds, 20)
    feeds["visual_index"] = np.tile(np.array([1, 2, 3, 5, 7, 8]), (2, 1))
    feeds["keep_ramp.0"] = np.arange(keep)
    ours = graphs.run("standard.prefill-fastv", feeds)
    same(ours, graphs.run("host.decoder-fastv", feeds))
    assert ours["key.1"].shape[2] == 14 and ours["key.2"].shape[2] == 8 + keep


def vision_feeds(graphs: Graphs, side: int, images: int = 2) -> dict[str, Array]:
    with np.load(graphs.bundle.file("positions.npz")) as tables:
        table = tables[str(side)].astype(np.float32)
    pixels = np.random.default_rng(side).normal(size=(images, 3, side, side))
    return {"pixel_values": pixels.astype(np.float32), "position_table": table}


@pytest.mark.parametrize("side", [56, 84, 28])
def test_the_tower_equals_the_hosts(side: int, graphs: Graphs) -> None:
    feeds = vision_feeds(graphs, side)
    vision = graphs.bundle.manifest.vision
    assert vision is not None and graphs.bundle.manifest.tower is not None
    assert [row.name for row in graphs.bundle.manifest.tower.input_rows()] == list(feeds)
    ours = graphs.run("standard.vision", feeds)
    same(ours, graphs.run("host.vision", feeds))
    assert ours["visual_embeds"].shape == (2, (side // 14) ** 2, 64)


@pytest.mark.parametrize("keep", [1, 6, 16])
@pytest.mark.parametrize("method", SELECTORS)
def test_selectors_equal_the_hosts(method: str, keep: int, graphs: Graphs) -> None:
    seen = graphs.run("host.vision", vision_feeds(graphs, 56))
    text = np.random.default_rng(3).normal(size=(7, 64)).astype(np.float32)
    feeds = {**seen, "text_embeds": text, "keep_ramp": np.arange(keep)}
    ours = graphs.run(f"standard.select-{method}", feeds)
    same(ours, graphs.run(f"host.select-{method}", feeds))
    # A merging selector's CLS takes the first token's place beside it.
    assert (np.diff(ours["index"], axis=1) >= (not SELECTORS[method].merges)).all()


def test_every_standard_graph_of_the_bundle_is_tested_here(graphs: Graphs) -> None:
    names = {Path(file).stem for file in graphs.bundle.manifest.files if "standard." in file}
    tested = {"standard.prefill", "standard.prefill-fastv", "standard.decode", "standard.vision"}
    assert names == tested | {f"standard.select-{method}" for method in SELECTORS}


@pytest.mark.parametrize(("name", "share"), [("llama-fp16", 0.01), ("llama-int4", 0.1)])
def test_half_precision_graphs_are_half_inside_and_float_where_the_table_says(
    name: str, share: float, bundle: Find
) -> None:
    graphs = Graphs(bundle(name))
    dims = graphs.bundle.manifest.dims
    feeds = decoder_feeds(graphs, 1, ROOM, "h2o")
    exact = graphs.run("host.decoder", feeds)
    halved = ("inputs_embeds", "slot_key", "slot_value")
    halves = {
        key: value.astype(np.float16) if key.startswith(halved) else value
        for key, value in feeds.items()
    }
    for graph in ("standard.prefill", "standard.decode"):
        types = graphs.types(graph)
        for row in (*decoder_inputs(dims, 0, graph == "standard.decode"), *decoder_outputs(dims)):
            expected = {"activation": "float16", "float32": "float"}.get(row.dtype, row.dtype)
            assert types[row.name] == f"tensor({expected})", row.name
    ours = graphs.run("standard.prefill", halves)
    largest = float(np.abs(exact["logits"]).max())
    np.testing.assert_allclose(ours["logits"], exact["logits"], atol=share * largest)


@pytest.mark.slow
def test_every_standard_graph_is_built_by_a_real_tensorrt_parser(bundle: Find) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    from tightrope.export.check.rtx import check_bundle

    results = check_bundle(bundle("llava-fp16"))
    assert {result.graph: result.message for result in results if not result.ok} == {}
    assert len(results) == 4 + len(SELECTORS)


def test_every_text_family_has_operators_that_every_parser_reads(
    text_family: str, bundle: Find
) -> None:
    recorded = Bundle.open(bundle(text_family)).manifest.standard_ops
    assert {str(name) for name in recorded} == {"standard.prefill", "standard.decode"}
    for operators in recorded.values():
        for version in parser_versions():
            assert load_parser(version).refuse(operators) == []
