"""Engines built by a stand-in for TensorRT, kept, found again, refused where anything differs."""

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
from tightrope.errors import BackendError
from tightrope.interface.names import GraphName
from tightrope.jetson.facts import BoardFacts
from tightrope.runtime.backends.tensorrt.building import BuiltEngine, build_engines, remove_engines
from tightrope.runtime.backends.tensorrt.engines import BuildOptions, Engines, open_engines

Find = Callable[[str], Path]
FAKE = Path(__file__).parent / "fake_builder"
FACTS = BoardFacts(
    name="Orin Nano 8GB",
    compute_capability="8.7",
    tensorrt="10.3.0",
    memory_available_bytes=6 << 30,
)
PREFILL, DECODE = GraphName("standard", "prefill"), GraphName("standard", "decode")
OPTIONS = BuildOptions()


@pytest.fixture(autouse=True)
def fake_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.pathsep.join([str(FAKE), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.fixture
def opened(bundle: Find) -> Bundle:
    return Bundle.open(bundle("llama-fp16"))


def built(bundle: Bundle, state: Path, alone: bool = False) -> list[BuiltEngine]:
    return list(build_engines(bundle, state, FACTS, OPTIONS, alone=alone))


def found(bundle: Bundle, state: Path, **changes: Any) -> Engines:
    return open_engines(bundle, state, replace(FACTS, **changes), OPTIONS)


def the(state: Path, graph: str, ending: str) -> Path:
    (file,) = (state / "engines").glob(f"standard.{graph}-*.{ending}")
    return file


def test_engines_are_built_once_and_found_again(opened: Bundle, tmp_path: Path) -> None:
    first = built(opened, tmp_path)
    assert [str(engine.graph) for engine in first] == ["standard.decode", "standard.prefill"]
    assert not any(engine.kept for engine in first)
    assert all(engine.kept for engine in built(opened, tmp_path))
    engines = found(opened, tmp_path)
    assert set(engines.found) == {PREFILL, DECODE} and not engines.alone
    told = json.loads(bytes(engines.plan(PREFILL)))
    slots, chunk = opened.manifest.slots, opened.manifest.prefill_chunk
    assert told["profile"]["inputs_embeds"][2] == [4, chunk, opened.manifest.dims.hidden_size]
    assert told["profile"]["slot_score"][2][-1] == slots == engines.ranges(PREFILL)["C"][2]
    assert sum(told["weights"].values()) > 1000, "the weights were where the graph says"


def test_what_was_measured_is_there_for_the_next_graph(opened: Bundle, tmp_path: Path) -> None:
    built(opened, tmp_path)
    plans = [json.loads(bytes(found(opened, tmp_path).plan(name))) for name in (DECODE, PREFILL)]
    assert [plan["timing"] for plan in plans] == ["", "measured;"]


def test_files_and_folder_are_this_users_alone(opened: Bundle, tmp_path: Path) -> None:
    built(opened, tmp_path / "x.state")
    folder = tmp_path / "x.state" / "engines"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compute_capability": "11.0"}, r"built for compute capability 8\.7, this GPU has 11\.0"),
        ({"tensorrt": "10.13.3"}, r"built by TensorRT 10\.3\.0, here is 10\.13\.3"),
        ({"name": "AGX Orin 64GB"}, "built on Orin Nano 8GB, this is AGX Orin 64GB"),
    ],
)
def test_an_engine_of_another_machine_is_told_by_what_differs(
    opened: Bundle, tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    built(opened, tmp_path)
    with pytest.raises(BackendError, match=f"{said}.*run: tightrope build"):
        found(opened, tmp_path, **changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"opset_version": 1}, "built for op set 2, this bundle has 1"),
        ({"slots": 4096}, "built for other numbers of tokens or slots"),
    ],
)
def test_an_engine_of_another_op_set_or_of_other_slots_is_told(
    opened: Bundle, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    built(opened, tmp_path)
    other = Bundle(opened.path, replace(opened.manifest, **change))
    with pytest.raises(BackendError, match=said):
        found(other, tmp_path)


def test_an_engine_of_another_bundle_is_told(opened: Bundle, bundle: Find, tmp_path: Path) -> None:
    built(opened, tmp_path)
    with pytest.raises(BackendError, match="built from another bundle"):
        found(Bundle.open(bundle("llama")), tmp_path)


def test_an_engine_that_was_asked_for_differently_is_told(opened: Bundle, tmp_path: Path) -> None:
    built(opened, tmp_path)
    with pytest.raises(BackendError, match=r"other options.*'search': '3'.*'search': '0'"):
        open_engines(opened, tmp_path, FACTS, BuildOptions(search=0))


def test_where_nothing_was_built_the_command_is_named(opened: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"no engine for standard\.prefill.*tightrope build"):
        found(opened, tmp_path)


def test_a_corrupted_plan_is_refused_and_built_anew(opened: Bundle, tmp_path: Path) -> None:
    built(opened, tmp_path)
    plan = the(tmp_path, "decode", "plan")
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    engines = found(opened, tmp_path)
    engines.plan(PREFILL)
    with pytest.raises(BackendError, match=r"decode-.* is damaged: .*sha256"):
        engines.plan(DECODE)
    assert [engine.kept for engine in built(opened, tmp_path)] == [False, True]
    found(opened, tmp_path).plan(DECODE)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 2}', '{"schema": 1}', "\x00"])
def test_a_damaged_description_is_told(opened: Bundle, tmp_path: Path, content: str) -> None:
    built(opened, tmp_path)
    the(tmp_path, "prefill", "json").write_text(content, encoding="utf-8")
    with pytest.raises(BackendError, match=r"prefill-.*json is damaged.*tightrope build"):
        found(opened, tmp_path)


def test_a_description_under_another_name_is_no_engine(opened: Bundle, tmp_path: Path) -> None:
    built(opened, tmp_path)
    the(tmp_path, "prefill", "json").write_bytes(the(tmp_path, "decode", "json").read_bytes())
    with pytest.raises(BackendError, match="describes another engine than its name says"):
        found(opened, tmp_path)


def test_a_plan_that_is_gone_is_told(opened: Bundle, tmp_path: Path) -> None:
    built(opened, tmp_path)
    the(tmp_path, "prefill", "plan").unlink()
    with pytest.raises(BackendError, match=r"plan is gone; run: tightrope build"):
        found(opened, tmp_path).plan(PREFILL)


def test_prefill_alone_serves_single_tokens_and_says_so(opened: Bundle, tmp_path: Path) -> None:
    assert [str(engine.graph) for engine in built(opened, tmp_path, alone=True)] == [str(PREFILL)]
    engines = found(opened, tmp_path)
    assert engines.alone and set(engines.found) == {PREFILL}
    # With more memory the other one comes, and prefill is not built again for it.
    assert [engine.kept for engine in built(opened, tmp_path)] == [False, True]
    assert not found(opened, tmp_path).alone


def test_engines_that_answer_wrongly_can_be_removed(opened: Bundle, tmp_path: Path) -> None:
    built(opened, tmp_path)
    remove_engines(opened, tmp_path, FACTS, OPTIONS)
    assert not list((tmp_path / "engines").glob("standard.*"))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("refuse", r"standard\.decode does not parse: node layers\.0\.mlp: no importer"),
        ("abort", r"standard\.decode was not built: TensorRT ended by SIGABRT"),
        ("killed", r"the kernel ended the process, most likely for want of memory"),
    ],
)
def test_whatever_ends_a_build_is_told_and_leaves_nothing(
    opened: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, said: str
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT", how)
    with pytest.raises(BackendError, match=said):
        built(opened, tmp_path)
    assert not list(tmp_path.glob("engines/*"))


def test_weights_are_read_where_they_are_mapped_if_the_parser_can(
    opened: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in compares them with the file's; 10.3, which reads the file itself, agrees."""
    monkeypatch.setenv("FAKE_TENSORRT_VERSION", "10.13.3")
    built(opened, tmp_path / "mapped")
    monkeypatch.setenv("FAKE_TENSORRT_VERSION", "10.3.0")
    built(opened, tmp_path / "copied")
    mapped, copied = (
        json.loads(bytes(found(opened, tmp_path / name).plan(DECODE)))
        for name in ("mapped", "copied")
    )
    assert mapped["weights"] == copied["weights"] and mapped["tensorrt"] == "10.13.3"
