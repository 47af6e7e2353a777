"""Graphs in which own ops stay: what is written of them, and that they answer as the host's do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

import onnx

from tightrope.bundle import Bundle, Manifest
from tightrope.cli.inspect import _facts
from tightrope.errors import InputError, UnsupportedModel
from tightrope.export.config import ExportConfig
from tightrope.export.graphs import write
from tightrope.interface.names import GraphName
from tightrope.interface.onnx import OWN_DOMAIN, OWN_OPSET
from tightrope.plugins.initializers import outside
from tightrope.plugins.ops import ops
from tightrope.plugins.own_nodes import read_own_nodes
from tightrope.runtime.model import Model
from tightrope.runtime.selftest.check import check

Find = Callable[[str], Path]
HERE = Path(__file__).parent
GRAPHS = HERE.parent / "plugins" / "graphs"
IMAGE = str(HERE.parent / "data" / "scenes" / "images" / "00001.png")
FEW = 40
HALVES = ("llama-fp16", "llama-int4", "llava-fp16")


@pytest.fixture(scope="module")
def whole(
    exported: Callable[..., Any], checkpoint: Find, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`whole("llava", ...)`: exported in float32, whatever kernels take, so that tokens compare."""

    def export(name: str, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp("plugins") / f"{name}.bundle"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(write, "refused_by_kernels", lambda _: [])
            exported(checkpoint(name), folder, precision="fp32", **options)
        return folder

    return export


@pytest.fixture(scope="module")
def on_plugins(module_of: Callable[[Path], ModuleType]) -> Callable[[Path], Any]:
    """`on_plugins(path)`: a backend that runs a bundle's graphs with plugins."""
    executor, backend = (
        module_of(GRAPHS / f"{name}.py") for name in ("executor", "plugin_backend")
    )
    return lambda path: backend.PluginGraphs(Bundle.open(path), executor)


def own_files(bundle: Bundle) -> dict[str, bytes]:
    return {
        name: bundle.graph(GraphName.parse(name)).read_bytes() for name in bundle.manifest.plugins
    }


@pytest.mark.parametrize("name", HALVES)
def test_the_manifest_says_what_each_graph_with_own_ops_asks_of_a_board(
    name: str, bundle: Find
) -> None:
    opened = Bundle.open(bundle(name))
    wanted = {"plugins.decoder"}
    if name == "llava-fp16":
        ranking = ("divprune", "flashvlm")
        wanted |= {"plugins.decoder-fastv", *(f"plugins.select-{method}" for method in ranking)}
    assert set(opened.manifest.plugins) == wanted and opened.manifest.no_plugins == ()
    written = [GraphName.parse(file) for file in opened.manifest.files if file.endswith(".onnx")]
    assert {str(graph) for graph in written if graph.variant == "plugins"} == wanted
    layers = opened.manifest.dims.num_hidden_layers
    for graph, content in own_files(opened).items():
        nodes = read_own_nodes(content, graph)
        told = opened.manifest.plugins[graph]
        assert {node.op for node in nodes} == set(told.own_ops)
        attends = layers if GraphName.parse(graph).role == "decoder" else 0
        assert [node.op for node in nodes].count("SlotAttention") == attends
        step = f"slot_attention_step_d{opened.manifest.dims.head_dim}"
        assert (step in told.kernels) == bool(attends)
        model = onnx.load_from_string(content)
        kinds = {node.op_type for node in model.graph.node}  # bodies of loops have others
        assert kinds <= set(told.operators) | set(told.own_ops) and not model.functions


@pytest.mark.parametrize("name", HALVES)
def test_weights_are_those_of_the_standard_graphs(name: str, bundle: Find) -> None:
    """By place in the one file: four-bit codes as bytes, nothing is stored a second time."""
    opened = Bundle.open(bundle(name))
    standard = [
        opened.graph(GraphName("standard", role)).read_bytes() for role in ("prefill", "decode")
    ]
    known = {(part.offset, part.length) for content in standard for part in outside(content)}
    content = own_files(opened)["plugins.decoder"]
    found = {(part.offset, part.length) for part in outside(content)}
    assert found and found <= known
    assert len(content) < sum(map(len, standard))


def test_a_node_says_namespace_version_and_every_attribute(bundle: Find) -> None:
    for content in own_files(Bundle.open(bundle("llava-fp16"))).values():
        model = onnx.load_from_string(content)
        assert {each.domain: each.version for each in model.opset_import}[OWN_DOMAIN] == OWN_OPSET
        for node in model.graph.node:
            if node.domain == OWN_DOMAIN:
                given = {
                    item.name: onnx.helper.get_attribute_value(item) for item in node.attribute
                }
                assert given.pop("plugin_namespace") == OWN_DOMAIN.encode()
                assert given.pop("plugin_version") == str(OWN_OPSET).encode()
                assert set(given) == set(ops()[node.op_type].schema.attributes)
                assert all(node.input), "no input without a name"


def test_four_bit_codes_are_bytes_and_no_optional_input_is_told(bundle: Find) -> None:
    content = own_files(Bundle.open(bundle("llama-int4")))["plugins.decoder"]
    nodes = [node for node in read_own_nodes(content, "x") if node.op == "Int4MatMul"]
    assert nodes and not [node for node in nodes if "given" in node.attributes]
    assert {len(node.inputs) for node in nodes} == {3}
    stored = {tensor.name: tensor for tensor in onnx.load_from_string(content).graph.initializer}
    for node in nodes:
        codes, scale = stored[node.inputs[1]], stored[node.inputs[2]]
        assert codes.data_type == onnx.TensorProto.INT8
        assert 2 * codes.dims[1] == scale.dims[1]


def test_slots_in_int8_are_read_by_plugins_with_their_scales(bundle: Find) -> None:
    opened = Bundle.open(bundle("llava-int8-slots"))
    manifest, dims = opened.manifest, opened.manifest.dims
    assert manifest.kv_cache == "int8" and manifest.parity is not None
    assert manifest.parity.int8_slots is not None and 0 < manifest.parity.int8_slots < 0.05
    for graph, content in own_files(opened).items():
        if GraphName.parse(graph).role != "decoder":
            continue
        model = onnx.load_from_string(content)
        found = {value.name: value.type.tensor_type for value in model.graph.input}
        rows = {row.name: row for row in manifest.rows(GraphName.parse(graph))}
        assert found["slot_value.1"].elem_type == onnx.TensorProto.INT8
        assert rows["slot_value.1"].dtype == "int8"
        for layer in range(dims.num_hidden_layers):
            scale = found[f"slot_key_scale.{layer}"]
            axes = [axis.dim_param or axis.dim_value for axis in scale.shape.dim]
            assert axes == list(rows[f"slot_key_scale.{layer}"].axes)
            assert scale.elem_type == onnx.TensorProto.FLOAT
        nodes = [x for x in read_own_nodes(content, graph) if x.op == "SlotAttention"]
        assert all(node.attributes["given"] == (1 << 13) - 1 for node in nodes)
        names = [f"slot_{kind}_scale.{{}}" for kind in ("key", "value")]
        for layer, node in enumerate(nodes):
            assert node.inputs[11:] == tuple(name.format(layer) for name in names)
        kernels = manifest.plugins[graph].kernels
        assert f"slot_attention_step_int8_d{dims.head_dim}" in kernels
        assert f"slot_attention_step_d{dims.head_dim}" not in kernels
    # A schedule ranks by the keys that layer's slots hold, and reads them as floats.
    assert "DequantizeLinear" in manifest.plugins["plugins.decoder-fastv"].operators
    assert "DequantizeLinear" not in manifest.plugins["plugins.decoder"].operators
    standard = onnx.load(opened.graph(GraphName("standard", "decode")), load_external_data=False)
    assert not [value for value in standard.graph.input if "scale" in value.name]
    told = dict(_facts(manifest))
    assert told["slots"] == f"{manifest.slots} in int8, prefill in chunks of 512"


def test_slots_in_int8_are_refused_where_no_kernel_reads_them(
    exported: Callable[..., Any], checkpoint: Find, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="int8 and precision fp32; accepted with it: fp16, int4"):
        ExportConfig(precision="fp32", kv_cache="int8")
    with pytest.raises(InputError, match="kv_cache is 'fp8'; accepted: float, int8"):
        ExportConfig(kv_cache="fp8")
    target = tmp_path / "x.bundle"
    with pytest.raises(UnsupportedModel, match=r"head_dim is 14, .* accepted: float"):
        exported(checkpoint("qwen3"), target, precision="fp16", kv_cache="int8")
    assert not target.exists()


@pytest.mark.parametrize("name", [*HALVES, "llava-int8-slots"])
def test_it_passes_the_bundles_own_test(
    name: str, bundle: Find, on_plugins: Callable[[Path], Any]
) -> None:
    backend = on_plugins(bundle(name))
    failed = [str(found) for found in check(backend.bundle, backend) if not found.passed]
    assert failed == []
    called = [op for executor in backend.executors.values() for op in executor.called]
    assert "SlotAttention" in called and (name != "llama-int4" or "Int4MatMul" in called)


def test_every_answer_has_the_tokens_of_the_host_face(
    whole: Callable[..., Path],
    on_plugins: Callable[[Path], Any],
    loaded: Callable[[str], Model],
    module_of: Callable[[Path], ModuleType],
) -> None:
    """Chosen before and inside, slots given up by every policy, several answers, a chat."""
    asked = module_of(HERE.parent / "tensorrt" / "asked.py")
    path = whole("llava", schedules=("fastv",), resolutions=(56, 84, 28))
    backend = on_plugins(path)
    ours = asked.ask_all(Model(backend.bundle, backend), IMAGE, FEW)
    assert ours == asked.ask_all(loaded("llava"), IMAGE, FEW)
    called = {op for executor in backend.executors.values() for op in executor.called}
    assert called == {"SlotAttention", "SelectTokens"}


def test_a_packed_tower_keeps_its_own_op(
    whole: Callable[..., Path], on_plugins: Callable[[Path], Any], loaded: Callable[[str], Model]
) -> None:
    path = whole("qwen2_5_vl", schedules=("fastv",), resolutions=(72, 96, 48))
    backend = on_plugins(path)
    answers = [
        model.generate("what is on the left ?", [IMAGE], max_tokens=6, ignore_eos=True).token_ids
        for model in (Model(backend.bundle, backend), loaded("qwen2_5_vl"))
    ]
    assert answers[0] == answers[1]
    assert set(backend.executors[GraphName("plugins", "vision")].called) == {"VarlenAttention"}


def test_what_kernels_do_not_take_is_told_and_the_standard_graphs_are_there(
    exported: Callable[..., Any], checkpoint: Find, bundle: Find, tmp_path: Path
) -> None:
    """Heads of 14 numbers, then float32."""
    narrow = exported(checkpoint("qwen3"), tmp_path / "x.bundle", precision="fp16")
    manifest = Bundle.open(tmp_path / "x.bundle").manifest
    (reason,) = manifest.no_plugins
    assert reason == (
        "SlotAttention: head_dim is 14, its kernels take 16 to 256, in multiples of 16"
    )
    assert any(reason in note for note in narrow.notes)
    assert {"standard.prefill", "standard.decode"} == set(manifest.standard_ops)
    assert not manifest.plugins and not [file for file in manifest.files if "plugins." in file]
    whole = Bundle.open(bundle("llama")).manifest
    assert whole.no_plugins == ("SlotAttention: it computes in float32, its kernels in float16",)


def test_a_manifest_that_names_a_graph_which_is_not_there_is_refused(bundle: Find) -> None:
    values = Bundle.open(bundle("llama-fp16")).manifest.to_dict()
    plugins = {"plugins.vision": values["plugins"]["plugins.decoder"]}
    with pytest.raises(ValueError, match=r"plugins names plugins\.vision, which is no file"):
        Manifest.from_dict(values | {"plugins": plugins})
    with pytest.raises(ValueError, match="'foo' is no graph's name"):
        Manifest.from_dict(values | {"plugins": {"foo": plugins["plugins.vision"]}})


def test_people_read_which_own_ops_there_are(bundle: Find) -> None:
    told = dict(_facts(Bundle.open(bundle("llava-fp16")).manifest))["own ops as plugins"]
    assert told == "SelectTokens, SlotAttention, of 6 kernels"
    told = dict(_facts(Bundle.open(bundle("llava")).manifest))["own ops as plugins"]
    assert told == "none: SlotAttention: it computes in float32, its kernels in float16"
