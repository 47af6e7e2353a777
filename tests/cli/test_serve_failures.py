"""Real servers that are killed, whose disk is full, whose bundle is gone, whose engine hangs."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tightrope.bundle import Bundle
from tightrope.live_file import FILE, keys_of
from tightrope.state import STAMP

ROOT = Path(__file__).resolve().parents[2]
BACK_SECONDS = 10.0
COMMAND = "from tightrope.cli import main; main()"
FULL_DISK = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
{COMMAND}
"""
HANGING = f"""
import os, time
from tightrope.runtime.backends.onnxruntime import OnnxRuntimeBackend
from tightrope.runtime.server import silence
silence.SILENT_SECONDS, silence.LOOK_SECONDS = 1.0, 0.2
prefill = OnnxRuntimeBackend.prefill
def hangs(*arguments):
    while os.path.exists(os.environ["HANG"]):
        time.sleep(0.05)
    return prefill(*arguments)
OnnxRuntimeBackend.prefill = hangs
{COMMAND}
"""
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA"
    "60e6kgAAAABJRU5ErkJggg=="
)
Find = Callable[[str], Path]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("starlette") is None, reason="needs the extra [serve]"
)


@dataclass
class Serving:
    """A server's process and what it says."""

    process: subprocess.Popen[str]
    port: int = 0
    ready_s: float = 0.0
    lines: list[str] = field(default_factory=list)

    def listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def wait_until(self, pattern: str) -> re.Match[str]:
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found
            time.sleep(0.01)
        raise AssertionError(f"no {pattern!r} in {self.lines}")

    def get(self, path: str) -> int:
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", path)
            return connection.getresponse().status

    def ask(self, content: Any = "what is it?", **fields: Any) -> tuple[int, Any]:
        with contextlib.closing(self.connect()) as connection:
            self.send(connection, content, {"max_tokens": 4} | fields)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def send(
        self, connection: http.client.HTTPConnection, content: Any, fields: dict[str, Any]
    ) -> None:
        body = {"messages": [{"role": "user", "content": content}], **fields}
        kind = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), kind)


@contextlib.contextmanager
def started(bundle: Path, code: str = COMMAND, port: int = 0) -> Iterator[Serving]:
    """A server that is ready; it is killed behind the block if it still runs."""
    began = time.monotonic()
    serving = Serving(
        subprocess.Popen(
            [sys.executable, "-c", code, "serve", str(bundle), "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, "TIGHTROPE_DEBUG": ""},
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    listening = threading.Thread(target=serving.listen)
    listening.start()
    try:
        serving.port = int(serving.wait_until(r"^listening on http://127\.0\.0\.1:(\d+),")[1])
        serving.wait_until("^ready$")
        serving.ready_s = time.monotonic() - began
        yield serving
    finally:
        serving.process.kill()
        serving.process.wait(20)
        listening.join(20)
    assert not any("Traceback" in line for line in serving.lines)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("TIGHTROPE_STATE", str(folder))
    return folder


def text_of(reply: tuple[int, Any]) -> str:
    status, content = reply
    assert status == 200, content
    text: str = content["choices"][0]["message"]["content"]
    return text


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def written(state: Path) -> dict[str, bytes]:
    """What is in the state folder but for what requests took, which is empty or can be read."""
    for file in state.rglob(FILE):
        keys_of(file)
    return {name: file for name, file in contents(state).items() if FILE not in name}


def test_killed_while_it_answers_it_is_back_soon_and_nothing_is_half_written(
    bundle: Find, tmp_path: Path, state: Path
) -> None:
    folder = shutil.copytree(bundle("llama"), tmp_path / "llama.bundle")
    before = contents(folder)
    with started(folder) as first:
        said = text_of(first.ask())
        with contextlib.closing(first.connect()) as running:
            endless = {"kv_budget": 64, "max_tokens": 4096, "temperature": 2.0, "stream": True}
            first.send(running, "go on", endless)
            assert running.getresponse().read(100)
            first.process.send_signal(signal.SIGKILL)
            first.process.wait(20)
    kept = written(state)
    assert list(kept) == [STAMP] and json.loads(kept[STAMP])
    assert contents(folder) == before
    with started(folder, port=first.port) as again:
        assert again.ready_s < BACK_SECONDS + 2 * first.ready_s  # others may load the machine
        assert text_of(again.ask()) == said


def test_on_a_full_disk_it_starts_and_answers_and_leaves_no_half_of_a_file(
    bundle: Find, state: Path
) -> None:
    with started(bundle("llama"), FULL_DISK) as serving:
        said = text_of(serving.ask())
        assert serving.get("/readyz") == serving.get("/metrics") == 200
        serving.process.send_signal(signal.SIGTERM)  # the end waits for what is to be written
        serving.process.wait(60)
    assert written(state) == {} and not any(contents(state).values())
    with started(bundle("llama")) as roomy:
        assert text_of(roomy.ask()) == said
    assert list(written(state)) == [STAMP]


def test_without_its_bundle_it_answers_what_it_holds_and_says_what_it_lacks(
    bundle: Find, tmp_path: Path, state: Path
) -> None:
    folder = shutil.copytree(bundle("llava"), tmp_path / "llava.bundle")
    method = next(iter(Bundle.open(folder).manifest.selectors))
    seen = [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": "?"}]
    with started(folder) as serving:
        said = text_of(serving.ask())
        shutil.rmtree(folder)
        assert text_of(serving.ask()) == said
        status, reply = serving.ask(seen, selector=method, keep=4)
        assert (status, reply["error"]["code"]) == (503, "engine_failed")
        assert method in reply["error"]["message"] and "\n" not in reply["error"]["message"]
        serving.wait_until("a request failed: .*llava.bundle")
        assert text_of(serving.ask()) == said
    again = subprocess.run(
        [sys.executable, "-m", "tightrope", "serve", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 1 and "does not exist" in again.stderr
    assert again.stderr.count("\n") == 1


def test_with_an_engine_that_hangs_it_says_so_ends_when_told_and_is_back(
    bundle: Find, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "hang"
    monkeypatch.setenv("HANG", str(flag))
    with started(bundle("llama"), HANGING) as serving:
        said = text_of(serving.ask())
        flag.touch()
        status, reply = serving.ask()
        assert (status, reply["error"]["code"]) == (503, "engine_silent")
        serving.wait_until("a request is given up: nothing has come")
        assert serving.get("/readyz") == 503 and serving.get("/healthz") == 200
        began = time.monotonic()
        assert serving.ask()[0] == 503  # at once: nobody has to find out by waiting
        assert time.monotonic() - began < 5
        serving.process.send_signal(signal.SIGTERM)
        serving.process.wait(60)
    with started(bundle("llama"), port=serving.port) as again:
        assert again.ready_s < BACK_SECONDS + 2 * serving.ready_s
        assert text_of(again.ask()) == said
