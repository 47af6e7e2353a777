from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from tightrope.cli.doctor import Diagnosis, diagnose
from tightrope.runtime.backends.availability import BackendStatus

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def diagnosis() -> Diagnosis:
    return diagnose()


def test_json_is_one_object_and_nothing_else(command: Command) -> None:
    result = command("doctor", "--json")
    found = json.loads(result.stdout)
    assert found["schema"] == 1
    assert set(found["backends"]) == {"onnxruntime", "onnxruntime-cuda", "tensorrt"}
    assert found["packages"]["needed everywhere"]["numpy"]
    assert result.returncode == (0 if found["healthy"] else 1)
    assert result.stderr == ""


def test_people_read_the_same_facts(command: Command) -> None:
    result = command("doctor")
    assert all(title in result.stdout for title in ("Machine", "Board", "Packages", "Backends"))
    assert not any(line.endswith(" ") for line in result.stdout.splitlines())


def test_no_ready_backend_is_unhealthy(diagnosis: Diagnosis) -> None:
    nothing = {"onnxruntime": BackendStatus(False, "onnxruntime is not installed")}
    assert not replace(diagnosis, backends=nothing).healthy


def test_a_refusal_is_unhealthy_whatever_is_ready(diagnosis: Diagnosis) -> None:
    ready = {"onnxruntime": BackendStatus(True, "onnxruntime 1.23")}
    assert replace(diagnosis, backends=ready, refusals=()).healthy
    assert not replace(diagnosis, backends=ready, refusals=("two of them",)).healthy


def test_two_onnxruntimes_are_refused_with_the_command_that_repairs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.23.0")
    found = diagnose()
    assert not found.healthy
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found.refusals[0]
