"""`tightrope serve`: what it refuses to start with, and a real one that is told to stop."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tightrope.errors import InputError
from tightrope.runtime.server.config import ServeConfig

Command = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).resolve().parents[2]
SERVE = (sys.executable, "-m", "tightrope", "serve")
serving = pytest.mark.skipif(
    importlib.util.find_spec("starlette") is None, reason="needs the extra [serve]"
)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "0.0.0.0"), "give --api-keys FILE"),
        (("--host", "::"), "give --api-keys FILE"),
        (("--host", "board.local"), "give --api-keys FILE"),
        (("--port", "70000"), "0..65535"),
        (("--max-body-mb", "0"), "max-body-mb is 0"),
        (("--queue", "-1"), "queue is -1"),
        (("--images", "no-such-folder"), "no folder"),
        (("--tls-key", "x.pem"), "belong together"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(
    command: Command, arguments: tuple[str, ...], words: str
) -> None:
    result = command("serve", "x.bundle", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_only_this_machine_reaches_a_loopback_address(host: str) -> None:
    assert ServeConfig(host=host).is_local


@serving
@pytest.mark.parametrize("content", ["", "# none\n", "a-plain-key\n", "0" * 64, "é" * 64 + " x"])
def test_a_file_of_keys_holds_hashes_and_names(tmp_path: Path, content: str) -> None:
    from tightrope.runtime.server.keys import Keys

    file = tmp_path / "keys"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="api-keys"):
        Keys(file)
    with pytest.raises(InputError, match="api-keys"):
        Keys(tmp_path / "nothing")
    file.write_bytes(hashlib.sha256(b"k").hexdigest().encode() + b"  camera\n")
    assert Keys(file).name_of("Bearer k") == "camera"
    assert Keys(file).name_of("bearer  k") == "camera"


@serving
def test_a_missing_bundle_and_a_wrong_certificate(command: Command, tmp_path: Path) -> None:
    missing = command("serve", str(tmp_path / "no.bundle"))
    assert missing.returncode == 1 and "does not exist" in missing.stderr
    assert missing.stderr.count("\n") == 1


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server's process and its port; it is killed behind the block if it still runs."""
    process = subprocess.Popen(
        [*SERVE, *arguments, "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "TIGHTROPE_DEBUG": ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        found = re.fullmatch(r"listening on http://127.0.0.1:(\d+), loading\n", first)
        assert found is not None, first
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait(20)


@serving
def test_a_real_server_is_ready_serves_and_ends_when_it_is_told(
    bundle: Callable[[str], Path],
) -> None:
    with started(str(bundle("llama")), "--threads", "1") as (process, port):
        assert process.stderr is not None
        # Nothing was measured, which keeps nobody from asking without a deadline.
        assert "keeps no deadlines" in process.stderr.readline()
        assert process.stderr.readline() == "ready\n"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/readyz")
            assert connection.getresponse().status == 200
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            number = str(taken.getsockname()[1])
            again = subprocess.run(
                [*SERVE, str(bundle("llama")), "--port", number],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
        assert again.returncode == 2 and again.stderr.count("\n") == 1
        assert f"port {number} cannot be listened on" in again.stderr
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        assert "Traceback" not in process.stderr.read()
