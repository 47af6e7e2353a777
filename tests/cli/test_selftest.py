"""The command: one line for each graph, an exit status, and a report that may be sent."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Find = Callable[[str], Path]
HERE = Path(__file__).parent


def test_each_graph_has_a_line_and_the_report_what_is_needed(
    command: Command, bundle: Find, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    result = command("selftest", str(bundle("llava")), "--threads", "1", "--report", str(file))
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines if line.startswith("ok")] == [
        *("vision", "select-divprune", "select-flashvlm", "select-visionzip"),
        *("prefill", "prefill-fastv", "decode", "recorded"),
        *("Int4MatMul,", "SelectTokens,", *["SlotAttention,"] * 3, "VarlenAttention,"),
    ]
    assert [line.split()[1] for line in lines if line.startswith("--")] == [
        *("Int4MatMul,", "SelectTokens,", *["SlotAttention,"] * 2, "VarlenAttention,")
    ]
    told = json.loads(file.read_text(encoding="utf-8"))
    assert told["passed"] and told["backend"] == "onnxruntime" and told["device"] == "cpu"
    assert told["machine"]["packages"]["to run"]["onnxruntime"]
    assert told["bundle"]["dims"]["num_hidden_layers"] and len(told["findings"]) == 19
    text = file.read_text(encoding="utf-8")
    assert str(bundle("llava").parent) not in text and str(Path.home()) not in text
    assert "licence" not in text and "picture" not in text, "nothing of whose it is, no images"


def test_a_false_weight_fails_by_name_and_the_report_says_it(
    command: Command, bundle: Find, tmp_path: Path, module_of: Callable[[Path], ModuleType]
) -> None:
    falsify = module_of(HERE.parent / "falsified.py").falsified
    path, file = (
        falsify(bundle("llama"), tmp_path / "x.bundle", "host.decoder"),
        tmp_path / "r.json",
    )
    result = command("selftest", str(path), "--threads", "1", "--report", str(file))
    assert result.returncode == 1
    assert "FAIL prefill:" in result.stdout and "FAIL decode:" in result.stdout
    told = json.loads(file.read_text(encoding="utf-8"))
    assert not told["passed"]
    assert [found["name"] for found in told["findings"] if not found["passed"]] == [
        *("prefill", "decode", "recorded steps")
    ]


def test_a_backend_that_is_not_here_is_a_finding_and_still_reported(
    command: Command, bundle: Find, tmp_path: Path
) -> None:
    file = tmp_path / "r.json"
    path = str(bundle("llama"))
    result = command("selftest", path, "--backend", "onnxruntime-cuda", "--report", str(file))
    assert result.returncode == 1
    assert "FAIL opening the backend" in result.stdout
    assert json.loads(file.read_text(encoding="utf-8"))["device"] is None


def test_json_is_one_object_and_an_unknown_backend_a_wrong_use(
    command: Command, bundle: Find
) -> None:
    path = str(bundle("llama"))
    result = command("selftest", path, "--threads", "1", "--json")
    assert result.returncode == 0 and json.loads(result.stdout)["passed"] is True
    assert command("selftest", path, "--backend", "foo").returncode == 2
    refused = command("selftest", path, "--report", "/proc/nowhere/report.json")
    assert refused.returncode == 2 and "--report" in refused.stderr
