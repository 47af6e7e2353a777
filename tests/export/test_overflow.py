"""Numbers inside the standard graphs that float16 does not hold: found at export, by their node."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

pytest.importorskip("torch", reason="exporting needs torch")

from safetensors.numpy import load_file, save_file

from tightrope.bundle import Bundle
from tightrope.errors import UnsupportedModel
from tightrope.export.overflow import schedule_overflow, tower_overflow, watched
from tightrope.export.walking import Prompt
from tightrope.inputs.layout import Placed, Stream
from tightrope.interface.names import GraphName
from tightrope.interface.onnx import IR_VERSION, OPSET
from tightrope.interface.tensors import QUERY_POSITION
from tightrope.jetson.facts import facts_of
from tightrope.runtime.backends import onnxruntime_cuda
from tightrope.runtime.backends.tensorrt.building import build_engines
from tightrope.runtime.backends.tensorrt.engines import BuildOptions
from tightrope.runtime.model import load

Find = Callable[[str], Path]
HALF = onnx.TensorProto.FLOAT16


def tower(folder: Path) -> None:
    """standard.vision: x times 400, turned, times 400, times a thousandth, all in float16."""
    (folder / "graphs").mkdir()
    factors = {"a": 400.0, "b": 400.0, "c": 0.001}
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["once"], name="first"),
        helper.make_node("Transpose", ["once"], ["turned"], name="turns"),
        helper.make_node("Mul", ["turned", "b"], ["twice"], name="second"),
        helper.make_node("Mul", ["twice", "c"], ["y"], name="third"),
    ]
    ends = [helper.make_tensor_value_info(name, HALF, ["I", "V"]) for name in ("x", "y")]
    stored = [numpy_helper.from_array(np.float16(value), name) for name, value in factors.items()]
    graph = helper.make_graph(nodes, "tower", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / GraphName("standard", "vision").file)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.4, None),
        (-1.0, r"second \(Mul\) in standard\.vision reaches (160,000|inf)"),
        (200.0, r"first \(Mul\) in standard\.vision reaches (80,000|inf)"),
    ],
)
def test_the_first_node_that_leaves_float16_is_named(
    value: float, said: str | None, tmp_path: Path
) -> None:
    """Also where a later one brings it back, and of either sign."""
    tower(tmp_path)
    found = tower_overflow(tmp_path, {"x": np.array([[0.1, value]], np.float32)})
    assert found == said or (said is not None and re.fullmatch(said, str(found))), found


def test_of_nothing_nothing_is_too_large(tmp_path: Path) -> None:
    tower(tmp_path)
    assert tower_overflow(tmp_path, {"x": np.zeros((0, 2), np.float32)}) is None


def steps(folder: Path) -> None:
    """standard.prefill and standard.decode: x times 400, in the one, and again, in the other."""
    (folder / "graphs").mkdir()
    stored = [numpy_helper.from_array(np.float16(400), "a")]
    ends = [helper.make_tensor_value_info(name, HALF, ["N", "S"]) for name in ("x", "y")]
    for role, nodes in (
        ("prefill", [helper.make_node("Mul", ["x", "a"], ["y"], name="once")]),
        (
            "decode",
            [
                helper.make_node("Mul", ["x", "a"], ["half"], name="once"),
                helper.make_node("Mul", ["half", "a"], ["y"], name="twice"),
            ],
        ),
    ):
        graph = helper.make_graph(nodes, role, ends[:1], ends[1:], stored)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        onnx.save(model, folder / f"graphs/standard.{role}.onnx")


def test_single_tokens_are_watched_too_and_the_largest_of_all_calls_counts(tmp_path: Path) -> None:
    steps(tmp_path)
    graphs = watched(tmp_path)

    def call(*values: float) -> dict[str, Any]:
        x = np.array([values], np.float32)
        return graphs.run({QUERY_POSITION: np.zeros(x.shape, np.int32), "x": x})

    assert list(call(1.0, -1.0)) == ["y"] and graphs.overflow() is None
    call(0.1)
    assert graphs.overflow() is None
    call(1.0)
    call(0.1)
    said = r"twice \(Mul\) in standard\.decode reaches (160,000|inf)"
    assert re.fullmatch(said, str(graphs.overflow()))
    call(float("nan"))
    call(0.1)
    assert graphs.overflow() == "once (Mul) in standard.decode reaches nan"


def test_graphs_that_drop_tokens_inside_are_watched(bundle: Find, tmp_path: Path) -> None:
    """One product behind the stage a million times as large: only the schedule's graph has it."""
    whole = Bundle.open(bundle("llava-fp16"))
    manifest, file = whole.manifest, whole.graph(GraphName("standard", "prefill", "fastv"))
    shutil.copytree(file.parent, tmp_path / "graphs")
    count = 12
    rng = np.random.default_rng(0)
    stream = Stream(
        embeds=rng.normal(size=(count, manifest.dims.hidden_size)).astype(np.float32),
        ordinals=np.arange(count, dtype=np.int32),
        visual=np.arange(2, 8),
        next_ordinal=count,
        runs=(Placed(0, ids=tuple(range(count))),),
    )
    embed: Any = None  # of tokens that follow: none does
    recipe: Any = SimpleNamespace(
        checkpoint=SimpleNamespace(family=SimpleNamespace(positions=manifest.positions)),
        schedules=manifest.schedules,
        dims=manifest.dims,
    )
    prompt = Prompt(stream, embed)
    assert schedule_overflow(tmp_path, prompt, recipe) is None

    model = onnx.load(file, load_external_data=False)
    last = [node for node in model.graph.node if node.op_type == "Softmax"][-1]
    at = list(model.graph.node).index(last)
    (product,) = [node for node in model.graph.node[at:] if node.op_type == "MatMul"][:1]
    given = product.output[0]
    product.output[0] = "quiet"
    loud = helper.make_node("Mul", ["quiet", "much"], [given], name="loud")
    model.graph.node.insert(list(model.graph.node).index(product) + 1, loud)
    model.graph.initializer.append(numpy_helper.from_array(np.float16(6e4), "much"))
    onnx.save(model, tmp_path / "graphs" / file.name)
    said = r"loud \(Mul\) in standard\.prefill-fastv reaches"
    assert re.match(said, str(schedule_overflow(tmp_path, prompt, recipe)))


@pytest.fixture(scope="module")
def loud(
    checkpoint: Find, exported: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """A model whose second layer adds far more than 65,504, which every norm takes back again."""
    place = tmp_path_factory.mktemp("loud")
    source = Path(shutil.copytree(checkpoint("llama"), place / "llama"))
    weights = load_file(source / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] *= 3e4
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    summary = exported(source, place / "loud.bundle", precision="fp16", prefill_chunk=32)
    return place / "loud.bundle", summary


def test_export_says_which_node_leaves_float16(loud: tuple[Path, Any], bundle: Find) -> None:
    folder, summary = loud
    found = Bundle.open(folder).manifest.parity
    assert found is not None and found.overflow is not None
    said = r".+ \(MatMul with model\.layers\.1\.mlp\.down_proj\.weight\) in standard\.prefill reach"
    assert re.match(said, found.overflow), found.overflow
    assert any(found.overflow in note and "precision fp32" in note for note in summary.notes)
    quiet = Bundle.open(bundle("llama-fp16")).manifest.parity
    assert quiet is not None and quiet.overflow is None


def test_a_gpu_is_not_given_what_leaves_float16(loud: tuple[Path, Any], tmp_path: Path) -> None:
    opened = Bundle.open(loud[0])
    said = r"down_proj.*65,504.*--precision fp32, or choose --backend onnxruntime"
    with pytest.raises(UnsupportedModel, match=said):
        onnxruntime_cuda.create(opened, 1)
    board, options = facts_of("orin-nano-8gb"), BuildOptions()
    with pytest.raises(UnsupportedModel, match=said):
        list(build_engines(opened, tmp_path, board, options, alone=False))
    model = load(loud[0], "onnxruntime", 1, live=False)
    assert len(model.generate([9, 8, 7], max_tokens=3, ignore_eos=True).token_ids) == 3
