"""Bundles that are exchanged while requests go on, and what a service manager hears meanwhile."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra [serve]")

from tightrope.errors import BackendError
from tightrope.runtime.backends.onnxruntime import OnnxRuntimeBackend
from tightrope.runtime.engine import engine_of
from tightrope.runtime.server.config import ServeConfig
from tightrope.runtime.server.manager import Manager
from tightrope.runtime.server.serve import Server

PATIENCE_S = 60.0
ASK = {"prompt": "a", "max_tokens": 8}


class Heard:
    """A socket in systemd's place, and all that was said to it."""

    def __init__(self, file: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(file))
        self._lines: list[str] = []

    def lines(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            while said := self._socket.recv(1 << 16, socket.MSG_DONTWAIT):
                self._lines += said.decode().splitlines()
        return self._lines

    def has(self, beginning: str) -> bool:
        return any(line.startswith(beginning) for line in self.lines())

    def forget(self) -> None:
        self.lines().clear()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """This process as a service, whose watchdog waits a second."""
    heard = Heard(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with contextlib.closing(heard):
        yield heard


@pytest.fixture
def models(bundle: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder of two bundles with a link to the first of them."""
    for name in ("llama", "qwen2"):
        shutil.copytree(bundle(name), tmp_path / f"{name}-1.bundle")
    (tmp_path / "model.bundle").symlink_to("llama-1.bundle")
    return tmp_path


def lead(models: Path, target: str) -> None:
    (models / "next").symlink_to(target)
    (models / "next").rename(models / "model.bundle")


@contextlib.contextmanager
def running(models: Path, **settings: Any) -> Iterator[tuple[Server, Any, list[Exception]]]:
    """A server, a client of it, and what it ended with."""
    from urllib.request import Request, urlopen

    server = Server(
        [models / "model.bundle"],
        ServeConfig(port=0, **settings),
        backend="onnxruntime",
        threads=1,
    )
    ready, errors = threading.Event(), list[Exception]()

    def run() -> None:
        try:
            server.run(ready.set)
        except Exception as error:
            errors.append(error)

    def ask(path: str, body: dict[str, Any] | None = None) -> Any:
        import json

        content = None if body is None else json.dumps(body).encode()
        head = {"content-type": "application/json"}
        with urlopen(Request(server.address + path, content, head), timeout=PATIENCE_S) as reply:
            return json.loads(reply.read())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield server, ask, errors
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        engine_of("cpu").watch(None)
        assert not thread.is_alive()


def until(met: Callable[[], object]) -> None:
    begun = time.monotonic()
    while not met():
        assert time.monotonic() - begun < PATIENCE_S
        time.sleep(0.02)


def family(ask: Any) -> str:
    return str(ask("/v1/models/model")["tightrope"]["family"])


def test_a_manager_hears_of_loading_readiness_reloading_and_the_end(
    models: Path, heard: Heard
) -> None:
    with running(models) as (server, ask, _):
        lines = heard.lines()
        extended = next(i for i, line in enumerate(lines) if line.startswith("EXTEND_TIMEOUT_USEC"))
        assert extended < lines.index("READY=1")
        heard.forget()
        lead(models, "qwen2-1.bundle")
        server.reload()
        until(lambda: heard.has("READY=1"))
        lines = heard.lines()
        assert lines.index("RELOADING=1") < lines.index("READY=1")
        assert heard.has("MONOTONIC_USEC=") and heard.has("WATCHDOG_USEC=60")
        # After graphs were loaded it is watched as closely as before.
        waits = [int(line[14:]) for line in lines if line.startswith("WATCHDOG_USEC=")]
        assert 10**6 <= waits[-1] < waits[0]
        assert family(ask) == "qwen2"
        heard.forget()
        server.reload()
        until(lambda: heard.has("READY=1"))
        assert any("nothing, all is as it was" in line for line in heard.lines())
    assert heard.has("STOPPING=1")


def test_the_engine_itself_gives_signs_of_life(
    models: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, hung = threading.Event(), threading.Event()
    decode = OnnxRuntimeBackend.decode

    def hangs(*arguments: Any) -> Any:
        hung.set()
        let_go.wait(PATIENCE_S)
        return decode(*arguments)

    with running(models) as (_, ask, _):
        heard.forget()
        until(lambda: heard.has("WATCHDOG=1"))  # while nothing is asked
        monkeypatch.setattr(OnnxRuntimeBackend, "decode", hangs)
        asking = threading.Thread(target=ask, args=("/v1/completions", ASK))
        asking.start()
        assert hung.wait(PATIENCE_S)
        heard.forget()
        time.sleep(1.5)
        assert ask("/healthz") == {"status": "alive"}  # everything else goes on
        assert not heard.has("WATCHDOG=1")
        let_go.set()
        asking.join(PATIENCE_S)
        until(lambda: heard.has("WATCHDOG=1"))


@pytest.mark.parametrize("memory_mb", [10**6, 1])
def test_requests_are_answered_while_a_bundle_is_exchanged(models: Path, memory_mb: int) -> None:
    """Beside the old one where both fit; else they wait until the old one is gone."""
    with running(models, memory_mb=memory_mb) as (server, ask, errors):
        answers: list[Any] = []
        asking = threading.Event()
        asking.set()

        def go_on() -> None:
            while asking.is_set():
                answers.append(ask("/v1/completions", ASK)["usage"]["completion_tokens"])

        threads = [threading.Thread(target=go_on) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) > 3)
        lead(models, "qwen2-1.bundle")
        server.reload()
        until(lambda: family(ask) == "qwen2")
        count = len(answers)
        until(lambda: len(answers) > count + 3)
        asking.clear()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert all(count > 0 for count in answers) and not errors
        assert ask("/readyz") == {"status": "ready", "models": ["model"]}


def spoil(folder: Path) -> None:
    """A self-test that no backend passes, in a bundle that is whole otherwise."""
    import hashlib
    import json

    arrays = dict(np.load(folder / "selftest.npz"))
    arrays["top_logits"] = arrays["top_logits"] + 100
    np.savez(folder / "selftest.npz", **arrays)
    content = (folder / "selftest.npz").read_bytes()
    manifest = json.loads((folder / "bundle.json").read_text())
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"]["selftest.npz"] = entry
    (folder / "bundle.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("target", ["none.bundle", "qwen2-1.bundle"])
def test_a_bundle_that_cannot_be_taken_leaves_the_old_one(
    models: Path, heard: Heard, target: str
) -> None:
    spoil(models / "qwen2-1.bundle")
    with running(models) as (server, ask, errors):
        heard.forget()
        lead(models, target)
        server.reload()
        until(lambda: heard.has("READY=1"))
        assert any("not reloaded" in line for line in heard.lines())
        assert family(ask) == "llama" and not errors
        assert ask("/v1/completions", ASK)["usage"]["completion_tokens"] > 0


def test_a_server_whose_only_bundle_is_gone_ends_with_the_reason(models: Path) -> None:
    spoil(models / "qwen2-1.bundle")
    with running(models, memory_mb=1) as (server, _, errors):
        lead(models, "qwen2-1.bundle")
        server.reload()
        until(lambda: errors)
    (error,) = errors
    assert isinstance(error, BackendError) and "answers otherwise" in str(error)


def test_a_clock_that_jumps_changes_nothing(
    models: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, jump = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + jump[0])
    with running(models) as (_, ask, errors):
        for seconds in (10 * 365 * 86400.0, -10 * 365 * 86400.0, 0.0):
            jump[0] = seconds
            heard.forget()
            answer = ask("/v1/completions", ASK)["tightrope"]
            assert 0 <= answer["timings"]["queue_ms"] < 1e3 * PATIENCE_S
            assert 0 < answer["timings"]["total_ms"] < 1e3 * PATIENCE_S
            assert ask("/readyz")["status"] == "ready"
            until(lambda: heard.has("WATCHDOG=1"))
        assert not errors


def test_a_watchdog_waits_for_three_of_the_longest_call(heard: Heard) -> None:
    manager = Manager()
    manager.took(0.3)
    assert heard.lines() == [] and manager.watchdog_s == 1
    manager.took(2.0)
    assert heard.lines() == ["WATCHDOG_USEC=6000000", "WATCHDOG=1"]
    manager.took(1.0)
    with manager.patient(100):
        assert manager.watchdog_s == 100
    assert manager.watchdog_s == 6 and heard.lines()[-2] == "WATCHDOG_USEC=6000000"
    manager.close()
    manager.took(10.0)  # whoever still runs says nothing more
    assert heard.lines()[-2] == "WATCHDOG_USEC=6000000"


@pytest.mark.parametrize(
    "changed",
    [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"NOTIFY_SOCKET": None}],
    ids=["another process", "no number", "no socket"],
)
def test_only_who_is_watched_gives_signs_of_life(
    heard: Heard, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None]
) -> None:
    for name, value in changed.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    manager = Manager()
    manager.beat()
    assert not manager.watches and heard.lines() == []
    manager.close()


def test_a_socket_that_nobody_listens_on_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    manager = Manager()
    manager.ready("as ever")
    manager.close()
