from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from tightrope.errors import BackendError
from tightrope.runtime import backends
from tightrope.runtime.backends import availability
from tightrope.runtime.backends.availability import backend_status, refuse_two_onnxruntimes


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    installed: Mapping[str, str],
    gpus: int = 0,
    modules: Collection[str] = (),
) -> None:
    monkeypatch.setattr(availability, "installed_version", installed.get)
    monkeypatch.setattr(availability, "find_spec", lambda name: name if name in modules else None)
    monkeypatch.setattr(availability, "num_cuda_devices", lambda: gpus)


def test_onnxruntime_alone_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"onnxruntime": "1.23.0"})
    refuse_two_onnxruntimes()
    status = backend_status()
    assert status["onnxruntime"].ready
    assert not status["onnxruntime-cuda"].ready


def test_onnxruntime_gpu_also_serves_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"onnxruntime-gpu": "1.23.0"}, gpus=1)
    status = backend_status()
    assert status["onnxruntime"].ready
    assert status["onnxruntime-cuda"].ready


def test_a_gpu_without_its_package_names_both_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"onnxruntime": "1.23.0"}, gpus=1)
    remedy = backend_status()["onnxruntime-cuda"].remedy
    assert remedy == "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"


def test_nothing_installed_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {})
    status = backend_status()["onnxruntime"]
    assert not status.ready
    assert status.remedy == "pip install onnxruntime"


def test_two_onnxruntimes_are_refused_and_make_neither_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, {"onnxruntime": "1.23.0", "onnxruntime-gpu": "1.23.0"}, gpus=1)
    with pytest.raises(BackendError, match=r"both installed.*pip uninstall"):
        refuse_two_onnxruntimes()
    status = backend_status()
    assert not status["onnxruntime"].ready
    assert not status["onnxruntime-cuda"].ready


def test_on_a_jetson_the_missing_wheel_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"onnxruntime": "1.23.0"}, gpus=1)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    status = backend_status()["onnxruntime-cuda"]
    assert not status.ready
    assert "no wheel of it for aarch64" in status.detail and "tensorrt" in str(status.remedy)


def test_auto_passes_over_what_is_taken_by_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"onnxruntime-gpu": "1.23.0"}, gpus=1)
    imported: list[str] = []

    class Made:
        create = staticmethod(lambda bundle, threads: None)

    def noted(name: str) -> type[Made]:
        imported.append(name)
        return Made

    monkeypatch.setattr(backends, "import_module", noted)
    bundle: Any = None
    backends.create_backend("auto", bundle)
    backends.create_backend("onnxruntime-cuda", bundle)
    ends = [name.rpartition(".")[2] for name in imported]
    assert ends == ["onnxruntime", "onnxruntime_cuda"]
