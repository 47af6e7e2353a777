"""What the benchmarks of the server share: a real server's process, and plain HTTP to it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHAT = "/v1/chat/completions"


class Client:
    """One connection at a time, kept alive; a thread each."""

    def __init__(self, port: int, timeout: float = 120) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        return self.send("POST", path, body, {"content-type": "application/json"})

    def get(self, path: str) -> tuple[int, bytes]:
        return self.send("GET", path, None, {})

    def send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                # Refused while it was sent: the answer is there.
                self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            status, content = response.status, response.read()
            if status != 200:  # with a body that was not read the connection ends
                self._connection.close()
            return status, content
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def hang_up(self, path: str, body: bytes, after_bytes: int) -> None:
        """Ask, read so much, and leave."""
        self._connection.request("POST", path, body, {"content-type": "application/json"})
        if after_bytes:
            self._connection.getresponse().read(after_bytes)
        self._connection.close()

    def resident_bytes(self) -> float:
        _, page = self.get("/metrics")
        found = re.search(rb"^process_resident_memory_bytes (\S+)$", page, re.M)
        assert found is not None
        return float(found[1])


@contextlib.contextmanager
def server(
    *arguments: str, program: tuple[str, ...] = ("-m", "tightrope", "serve")
) -> Iterator[int]:
    """The port of a server's process, once it is ready."""
    process = subprocess.Popen(
        [sys.executable, *program, *arguments, "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        port = None
        for line in process.stderr:
            if found := re.match(r"listening on \S+:(\d+),", line):
                port = int(found[1])
            if line == "ready\n":
                break
        else:
            raise SystemExit("the server did not start")
        assert port is not None
        yield port
    finally:
        process.terminate()
        process.wait(30)


def data_url(file: Path | bytes) -> str:
    content = file if isinstance(file, bytes) else file.read_bytes()
    return "data:image/png;base64," + base64.b64encode(content).decode()


def question(text: str, images: list[Path | bytes], **fields: Any) -> bytes:
    """A body that asks this of these pictures."""
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": data_url(image)}} for image in images
    ]
    parts.append({"type": "text", "text": text})
    return json.dumps({"messages": [{"role": "user", "content": parts}], **fields}).encode()
