from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tightrope.cli.doctor import Diagnosis, diagnose, diagnosis_of
from tightrope.jetson.problems import Problem
from tightrope.jetson.survey import survey
from tightrope.runtime.backends.availability import BackendStatus

Command = Callable[..., "subprocess.CompletedProcess[str]"]
module = importlib.import_module("tightrope.cli.doctor")
READY = {"onnxruntime": BackendStatus(True, "onnxruntime 1.23")}


@pytest.fixture
def diagnosis() -> Diagnosis:
    return diagnose()


def test_json_is_one_object_and_nothing_else(command: Command) -> None:
    result = command("doctor", "--json")
    found = json.loads(result.stdout)
    assert found["schema"] == 2
    assert set(found["backends"]) == {"onnxruntime", "onnxruntime-cuda", "tensorrt"}
    assert found["packages"]["needed everywhere"]["numpy"]
    assert found["machine"]["memory_bytes"] > 0
    assert isinstance(found["problems"], list)
    assert result.returncode == (0 if found["healthy"] else 1)
    assert result.stderr == ""


def test_people_read_the_same_facts(command: Command) -> None:
    result = command("doctor")
    titles = ("Machine", "Board", "Sensors", "Packages", "Backends")
    assert all(title in result.stdout for title in titles)
    assert not any(line.endswith(" ") for line in result.stdout.splitlines())


def test_no_ready_backend_is_told_and_unhealthy(
    diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {"onnxruntime": BackendStatus(False, "onnxruntime is not installed", "pip install")}
    assert not replace(diagnosis, backends=nothing).healthy
    monkeypatch.setattr(module, "backend_status", lambda: nothing)
    first = diagnose().problems[0]
    assert first.what == "no backend is ready: onnxruntime is not installed"
    assert first.fix == "pip install"


def test_what_blocks_is_unhealthy_whatever_is_ready(diagnosis: Diagnosis) -> None:
    healthy = replace(diagnosis, backends=READY, problems=())
    assert healthy.healthy
    slow = Problem(gravity="slows", what="x", fix="y")
    assert replace(healthy, problems=(slow,)).healthy
    assert not replace(healthy, problems=(replace(slow, gravity="blocks"),)).healthy


def test_two_onnxruntimes_come_first_with_the_command_that_repairs_it(
    monkeypatch: pytest.MonkeyPatch, boards: ModuleType, tmp_path: Path
) -> None:
    files = boards.files_of(boards.KITS["AGX Orin 64GB"])
    found = survey(boards.laid_out(tmp_path, files), uid=1000, group_ids=())
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.23.0")
    diagnosis = diagnosis_of(found)
    assert not diagnosis.healthy
    first, second = diagnosis.problems[:2]
    assert first.what.startswith("onnxruntime 1.23.0 and onnxruntime-gpu 1.23.0 are both installed")
    assert first.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")
    assert "usermod" in second.fix


@pytest.mark.parametrize("name", ["Orin Nano 8GB", "AGX Orin 64GB", "Thor T5000"])
def test_a_board_is_told_in_full(
    name: str, boards: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = boards.KITS[name]
    diagnosis = diagnose(boards.laid_out(tmp_path, boards.files_of(kit)))
    module._print_for_people(diagnosis)
    text = capsys.readouterr().out
    assert name in text and kit.module_id in text
    assert f"{kit.modes[kit.mode].name} (of {kit.modes[0].name}" in text
    for words in ("SMs that are on", "GPU clock", "swap", "contiguous memory", "tj"):
        assert words in text
    assert kit.cuda in text
    told = json.loads(json.dumps(diagnosis.to_dict()))
    assert told["board"]["module"]["name"] == name
    assert told["sensors"]["source"]


LOG = (
    "04-19-2026 01:31:10 RAM 519/7607MB (lfb 61x4MB) CPU [0%@1728,off] EMC_FREQ 0%@3199 "
    "GR3D_FREQ 0%@[1018] cpu@48.906C tj@49.593C VDD_IN 5000mW/5971mW\n"
    "04-19-2026 01:31:20 RAM 6000/7607MB (lfb 2x1MB) CPU [0%@1728,off] EMC_FREQ 0%@3199 "
    "GR3D_FREQ 99%@[1018] cpu@58.906C tj@71.5C VDD_IN 15000mW/5971mW\n"
)


def test_a_log_of_tegrastats_is_told(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_text(LOG + "04-19-2026 01:31:30 RAM 61")
    told = json.loads(command("doctor", "--tegrastats", str(file), "--json").stdout)
    assert (told["lines"], told["seconds"], told["mean_watts"]) == (2, 10.0, 10.0)
    assert (told["energy_j"], told["hottest_c"]) == (100.0, 71.5)
    assert (told["most_ram_mb"], told["least_free_piece_mb"]) == (6000, 1.0)
    text = command("doctor", "--tegrastats", str(file)).stdout
    assert "10.00 W in the mean, 15.00 at most" in text and "71.5 °C" in text


@pytest.mark.parametrize("content", [None, "", "hello\nworld\n"])
def test_a_file_that_is_no_log_is_refused(
    content: str | None, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "log.txt"
    if content is not None:
        file.write_text(content)
    result = command("doctor", "--tegrastats", str(file))
    assert result.returncode == 2
    assert result.stderr.startswith("error: --tegrastats")
    assert len(result.stderr.splitlines()) == 1
