"""The command around the engines: what is checked and printed before anything is allocated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.bundle import MANIFEST, Bundle
from tightrope.cli.build import build
from tightrope.cli.selftest import OPENING
from tightrope.errors import BackendError, DeviceUnavailable, InputError, UnsupportedModel
from tightrope.jetson.facts import BoardFacts
from tightrope.runtime.selftest.check import Finding
from tightrope.runtime.selftest.report import Verdict

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Find = Callable[[str], Path]
COMMAND = sys.modules["tightrope.cli.build"]  # the package has the command by that name
FAKE = Path(__file__).parents[1] / "tensorrt" / "fake_builder"
HERE = BoardFacts(
    name="Orin Nano 8GB",
    compute_capability="8.7",
    tensorrt="10.3.0",
    memory_available_bytes=6 << 30,
    cma_bytes=512 << 20,
    cma_free_bytes=400 << 20,
)


@pytest.fixture
def on_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """`on_board(facts, passed)`: this machine is that board, and the self-test ends so."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))

    def be(facts: BoardFacts = HERE, *findings: Finding) -> None:
        monkeypatch.setattr(COMMAND, "_facts", lambda board: facts)
        tested = Verdict(backend="tensorrt", device="cuda", findings=findings or (finding(True),))
        monkeypatch.setattr(COMMAND, "run", lambda *_, **__: tested)

    return be


def finding(passed: bool, name: str = "decode") -> Finding:
    return Finding(name=name, passed=passed, detail="differs by 0.5", seconds=0.1)


def built(path: Path, **options: Any) -> int:
    with pytest.raises(typer.Exit) as raised:
        build(path, **options)
    return raised.value.exit_code


def test_the_plan_is_printed_before_the_engines(
    on_board: Callable[..., None], bundle: Find, capsys: pytest.CaptureFixture[str]
) -> None:
    on_board()
    assert built(bundle("llama-fp16")) == 0
    text = capsys.readouterr().out
    assert text.index("while it answers") < text.index("There is") < text.index("standard.decode:")
    assert "weights of prefill (counted)" in text and "CUDA and TensorRT (assumed)" in text
    kernels = "slot_attention_step_d16, slot_attention_combine_d16, slot_attention_prefill_d16"
    assert f"standard operators alone: no kernel {kernels} and 2 more for sm_87 is here" in text
    assert built(bundle("llama-fp16"), json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["plugins"]["built"] == "none" and kernels in told["plugins"]["why"]
    assert told["passed"] and [engine["kept"] for engine in told["engines"]] == [True, True]


def test_a_board_that_no_table_knows_works_and_says_so(
    on_board: Callable[..., None], bundle: Find, capsys: pytest.CaptureFixture[str]
) -> None:
    on_board(replace(HERE, name="p9999-0000", device=None))
    assert built(bundle("llama-fp16")) == 0
    assert "no table knows this board" in capsys.readouterr().out


def test_too_little_memory_is_told_before_anything_is_built(
    on_board: Callable[..., None], bundle: Find, tmp_path: Path
) -> None:
    on_board(replace(HERE, memory_available_bytes=100 << 20))
    with pytest.raises(BackendError, match=r"GiB are available: export with --precision int4"):
        build(bundle("llama-fp16"))
    assert not (tmp_path / "state" / "engines").exists()
    assert built(bundle("llama-fp16"), force=True) == 0


def test_engines_that_answer_wrongly_are_removed(
    on_board: Callable[..., None], bundle: Find, tmp_path: Path
) -> None:
    on_board(HERE, finding(True, "prefill"), finding(False))
    with pytest.raises(BackendError, match=r"answer otherwise .* were removed"):
        build(bundle("llama-fp16"))
    assert not list((tmp_path / "state" / "engines").glob("*.plan"))
    told = json.loads((tmp_path / "state" / "selftest.json").read_text(encoding="utf-8"))
    assert not told["passed"] and told["engines"][0]["key"]["board"] == HERE.name


def test_where_the_backend_does_not_open_engines_stay(
    on_board: Callable[..., None], bundle: Find, tmp_path: Path
) -> None:
    on_board(HERE, finding(False, OPENING))
    assert built(bundle("llama-fp16")) == 1
    assert len(list((tmp_path / "state" / "engines").glob("*.plan"))) == 2


@pytest.mark.parametrize(
    ("operators", "tensorrt", "said"),
    [
        ({"Attention": "layer 3"}, "10.13.3.9", r"Attention \(node layer 3\).*TensorRT 10\.13"),
        ({"Swish": "mlp"}, "10.16.2.10", r"standard\.decode cannot be built: .*Swish \(node mlp\)"),
        ({"Add": "a"}, "8.6.1", r"TensorRT 8\.6\.1 is older than 10\.3.*JetPack 6\.1"),
    ],
)
def test_a_graph_that_this_tensorrt_would_not_parse_is_told_with_its_node(
    on_board: Callable[..., None], bundle: Find, tmp_path: Path,
    operators: dict[str, str], tensorrt: str, said: str,
) -> None:  # fmt: skip
    on_board(replace(HERE, tensorrt=tensorrt))
    path = edited(bundle("llama-fp16"), tmp_path, standard_ops={"standard.decode": operators})
    with pytest.raises(BackendError, match=said):
        build(path)


def test_int4_groups_that_tensorrt_does_not_know_are_told(
    on_board: Callable[..., None], bundle: Find, tmp_path: Path
) -> None:
    on_board()
    weights = {"mlp": {"stored": {"int4 by 48": 3}, "bytes": 1000, "logit_error": None}}
    path = edited(bundle("llama-fp16"), tmp_path, weights=weights)
    with pytest.raises(BackendError, match=r"share a scale by 48, TensorRT 10.3 takes 16, 32"):
        build(path)


def edited(bundle: Path, folder: Path, **values: Any) -> Path:
    """A bundle of links to another's files, whose bundle.json says something else."""
    copy = folder / "edited.bundle"
    copy.mkdir()
    for entry in bundle.iterdir():
        (copy / entry.name).symlink_to(entry)
    described = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    (copy / MANIFEST).unlink()
    (copy / MANIFEST).write_text(json.dumps(described | values), encoding="utf-8")
    return copy


def test_for_another_board_it_plans_and_does_not_build(command: Command, bundle: Find) -> None:
    result = command("build", str(bundle("llama-fp16")), "--board", "orin-nano-8gb")
    assert result.returncode == 1
    assert "85% of the 8 GB of its data sheet" in result.stdout
    assert "run this on the Orin Nano 8GB itself" in result.stderr


def test_a_machine_without_tensorrt_is_told_how_to_get_it(
    bundle: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DeviceUnavailable, match="sudo apt install python3-libnvinfer"):
        build(bundle("llama-fp16"))


def test_plugins_that_cannot_be_built_are_refused_with_the_reason(
    on_board: Callable[..., None], bundle: Find
) -> None:
    on_board()
    with pytest.raises(BackendError, match=r"no kernel slot_attention_step_d16, .* for sm_87"):
        build(bundle("llama-fp16"), plugins="all")
    with pytest.raises(UnsupportedModel, match=r"kernels do not take this model .*float32"):
        build(bundle("llama"), plugins="all")
    with pytest.raises(InputError, match="TensorRT for RTX, which has no plugins"):
        build(bundle("llama"), plugins="all", check=True)
    with pytest.raises(InputError, match="accepted: auto, none, all"):
        build(bundle("llama"), plugins="some")


def test_engines_of_one_kind_are_there(
    on_board: Callable[..., None], bundle: Find, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_board()
    path, state = bundle("llama-fp16"), tmp_path / "state"
    assert built(path) == 0
    kernels = state / "kernels" / "sm_87"
    kernels.mkdir(parents=True)
    for name in Bundle.open(path).manifest.plugins["plugins.decoder"].kernels:
        (kernels / f"{name}.json").touch()
    for plugins, said, graphs in (
        ("auto", "our own ops as plugins", {"plugins.decoder"}),
        ("none", "as asked for", {"standard.prefill", "standard.decode"}),
    ):
        assert built(path, plugins=plugins) == 0
        assert said in capsys.readouterr().out
        plans = {file.name.rpartition("-")[0] for file in (state / "engines").glob("*.plan")}
        assert plans == graphs
