"""Engines of graphs with own ops: when they are built, with what, and what is said if not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.bundle import Bundle
from tightrope.errors import BackendError, UnsupportedModel
from tightrope.interface.names import GraphName
from tightrope.jetson.facts import BoardFacts
from tightrope.plugins.kernels.homes import homes_of
from tightrope.plugins.ops import ops
from tightrope.runtime.backends.tensorrt.building import build_engines
from tightrope.runtime.backends.tensorrt.engines import (
    BuildOptions,
    graphs_of,
    open_engines,
    options_built,
    refuse_unparsed,
    with_plugins,
)

Find = Callable[[str], Path]
FAKE = Path(__file__).parent / "fake_builder"
FACTS = BoardFacts(
    name="Orin Nano 8GB",
    compute_capability="8.7",
    tensorrt="10.3.0",
    memory_available_bytes=6 << 30,
)
PLUGINS, NONE = BuildOptions(plugins="all"), BuildOptions()
DECODER = GraphName("plugins", "decoder")
SELECT = {
    variant: [f"{variant}.select-{method}" for method in ("divprune", "flashvlm")]
    for variant in ("standard", "plugins")
}
"""Selectors that rank."""


@pytest.fixture(autouse=True)
def fake_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.pathsep.join([str(FAKE), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.fixture
def opened(bundle: Find) -> Bundle:
    return Bundle.open(bundle("llava-fp16"))


def compiled(bundle: Bundle, state: Path, sm: int = 87) -> None:
    """As if all kernels had been built for that SM."""
    folder = state / "kernels" / f"sm_{sm}"
    folder.mkdir(parents=True)
    for graph in bundle.manifest.plugins.values():
        for name in graph.kernels:
            (folder / f"{name}.json").touch()


def chosen(bundle: Bundle, state: Path, asked: str, **changes: Any) -> tuple[str, str]:
    facts = replace(FACTS, **changes)
    return with_plugins(bundle, facts, asked, homes_of(bundle.path, state))


def test_a_decoder_with_plugins_takes_the_place_of_prefill_and_decode(opened: Bundle) -> None:
    graphs = {str(graph) for graph in graphs_of(opened.manifest, PLUGINS)}
    standard = {str(graph) for graph in graphs_of(opened.manifest, NONE)}
    served = {"standard.prefill", "standard.prefill-fastv", "standard.decode", *SELECT["standard"]}
    own = {"plugins.decoder", "plugins.decoder-fastv", *SELECT["plugins"]}
    assert graphs == standard - served | own


def test_plugins_are_built_where_every_kernel_is_there(opened: Bundle, tmp_path: Path) -> None:
    compiled(opened, tmp_path)
    for asked in ("auto", "all"):
        assert chosen(opened, tmp_path, asked) == ("all", "our own ops as plugins")
    assert chosen(opened, tmp_path, "none") == ("none", "standard operators alone, as asked for")


def test_a_missing_kernel_is_named_and_the_standard_graphs_are_built(
    opened: Bundle, tmp_path: Path
) -> None:
    compiled(opened, tmp_path)
    (tmp_path / "kernels" / "sm_87" / "select_tokens.json").unlink()
    plugins, why = chosen(opened, tmp_path, "auto")
    assert plugins == "none"
    assert why == "standard operators alone: no kernel select_tokens for sm_87 is here"
    said = "--plugins all cannot be: no kernel select_tokens for sm_87 is here; --plugins none"
    with pytest.raises(BackendError, match=said):
        chosen(opened, tmp_path, "all")
    _, why = chosen(opened, tmp_path, "auto", compute_capability="11.0")
    assert "and 3 more for sm_110 is here" in why


def test_slots_in_int8_are_built_with_plugins_or_not_at_all(opened: Bundle, tmp_path: Path) -> None:
    coded = Bundle(opened.path, replace(opened.manifest, kv_cache="int8"))
    float_way = "export the checkpoint with --kv-cache float"
    for asked, said in (
        ("none", f"plugins are not wanted; build without --plugins none, or {float_way}"),
        ("auto", rf"no kernel .* is here; .* tightrope kernels build, or {float_way}"),
        ("all", rf"no kernel .* is here; .* tightrope kernels build, or {float_way}"),
    ):
        with pytest.raises(BackendError, match=said):
            chosen(coded, tmp_path, asked)
    compiled(coded, tmp_path)
    assert chosen(coded, tmp_path, "auto")[0] == "all"


def test_a_bundle_without_graphs_for_plugins_says_why(bundle: Find, tmp_path: Path) -> None:
    whole = Bundle.open(bundle("llama"))
    with pytest.raises(UnsupportedModel, match=r"do not take this model \(.*computes in float32"):
        chosen(whole, tmp_path, "all")
    older = Bundle(whole.path, replace(whole.manifest, no_plugins=()))
    _, why = chosen(older, tmp_path, "auto")
    assert "this bundle has no graphs for plugins; export the checkpoint again" in why


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"D": 72, "Hq": 8}, "head_dim is 72, its kernels take 16 to 256, in multiples of 16"),
        ({"D": 512, "Hq": 8}, "head_dim is 512, its kernels take 16 to 256, in multiples of 16"),
        (
            {"D": 64, "Hq": 18},
            "the number of query heads a KV head is 9, its kernels take 1 to 8",
        ),
    ],
)
def test_heads_that_kernels_do_not_take_are_told_with_the_limits(
    sizes: dict[str, int], said: str, opened: Bundle, tmp_path: Path
) -> None:
    """In the words that export puts into the bundle."""
    sizes = {"Hkv": 2, "pool_kernel": 5, **sizes}
    words = [f"SlotAttention: {text}" for text in ops()["SlotAttention"].refusals(sizes, "float16")]
    manifest = replace(opened.manifest, plugins={}, no_plugins=tuple(words))
    model = Bundle(opened.path, manifest)
    with pytest.raises(
        UnsupportedModel, match=f"do not take this model .SlotAttention: {said}.; --pl"
    ):
        chosen(model, tmp_path, "all")
    plugins, why = chosen(model, tmp_path, "auto")
    assert plugins == "none" and said in why


def test_one_engine_has_a_profile_for_prompts_and_one_for_tokens(
    opened: Bundle, tmp_path: Path
) -> None:
    built = list(build_engines(opened, tmp_path, FACTS, PLUGINS, alone=False))
    assert {str(engine.graph) for engine in built if engine.graph.variant == "plugins"} == {
        "plugins.decoder",
        "plugins.decoder-fastv",
        *SELECT["plugins"],
    }
    engines = open_engines(opened, tmp_path, FACTS, options_built(opened, tmp_path, FACTS))
    assert engines.graph("prefill") == engines.graph("decode") == DECODER and not engines.alone
    assert engines.graph("prefill", "fastv") == GraphName("plugins", "decoder", "fastv")
    assert engines.graph("select", "flashvlm") == GraphName("plugins", "select", "flashvlm")
    assert engines.graph("select", "visionzip") == GraphName("standard", "select", "visionzip")
    assert engines.graph("vision") == GraphName("standard", "vision")
    told = json.loads(bytes(engines.plan(DECODER)))
    prompts, tokens = told["profiles"]
    assert set(told["plugins"]) == {"SlotAttention"}
    chunk = opened.manifest.prefill_chunk
    assert [shape[1] for shape in prompts["inputs_embeds"]] == [1, chunk, chunk]
    assert [shape[1] for shape in tokens["inputs_embeds"]] == [1, 1, 1]
    assert prompts["slot_key.0"][0][2] == 0 and tokens["slot_key.0"][0][2] == 1
    one = json.loads(bytes(engines.plan(GraphName("plugins", "decoder", "fastv"))))
    assert len(one["profiles"]) == 1 and set(one["plugins"]) == {"SlotAttention", "SelectTokens"}


def test_the_engines_that_are_there_are_opened(opened: Bundle, tmp_path: Path) -> None:
    assert options_built(opened, tmp_path, FACTS) == NONE
    list(build_engines(opened, tmp_path, FACTS, PLUGINS, alone=False))
    assert options_built(opened, tmp_path, FACTS) == PLUGINS
    assert options_built(opened, tmp_path, replace(FACTS, tensorrt="10.13.3")) == NONE


def test_int4_products_are_plugins_with_bytes_of_codes(bundle: Find, tmp_path: Path) -> None:
    opened = Bundle.open(bundle("llama-int4"))
    list(build_engines(opened, tmp_path, FACTS, PLUGINS, alone=False))
    told = json.loads(bytes(open_engines(opened, tmp_path, FACTS, PLUGINS).plan(DECODER)))
    assert set(told["plugins"]) == {"SlotAttention", "Int4MatMul"}


def test_a_graph_of_another_op_set_is_refused_before_it_is_parsed(
    opened: Bundle, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.bundle"
    (copy / "graphs").mkdir(parents=True)
    for name in opened.manifest.files:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).symlink_to(opened.path / name)
    file = copy / DECODER.file
    content = file.read_bytes()
    file.unlink()
    # An import of the op set: domain, then version 2, a number of one byte.
    version = b"\x0a\x09tightrope\x10\x02"
    assert content.count(version) == 1
    file.write_bytes(content.replace(version, version[:-1] + b"\x03"))
    edited = Bundle(copy, opened.manifest)
    with pytest.raises(BackendError, match=r"plugins\.decoder\.onnx is of op set 3, this reader"):
        list(build_engines(edited, tmp_path, FACTS, PLUGINS, alone=False))
    assert not list((tmp_path / "engines").glob("plugins*"))


def test_operators_of_onnx_are_held_against_the_parser(opened: Bundle) -> None:
    refuse_unparsed(opened, "10.3.0", PLUGINS)
    graph = opened.manifest.plugins["plugins.decoder"]
    spoiled = replace(graph, operators={**graph.operators, "Swish": "mlp"})
    manifest = replace(opened.manifest, plugins={"plugins.decoder": spoiled})
    with pytest.raises(BackendError, match=r"plugins\.decoder cannot be built: operator Swish"):
        refuse_unparsed(Bundle(opened.path, manifest), "10.3.0", PLUGINS)
