"""Real servers in threads: real sockets, real engine, small bundles."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

Find = Callable[[str], Path]


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> dict[str, Any]:
        told: dict[str, Any] = self.json["error"]
        assert set(told) >= {"message", "type", "param", "code"}
        assert "Traceback" not in told["message"] and "\n" not in told["message"]
        return told


@dataclass
class Client:
    """Speaks to one server over a connection for each request."""

    port: int
    headers: dict[str, str]

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            response = connection.getresponse()
            lower = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, lower, response.read())

    def get(self, path: str, headers: dict[str, str] | None = None) -> Reply:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
        kind = {"content-type": "application/json", **(headers or {})}
        return self.ask("POST", path, json.dumps(body), kind)

    def chat(self, content: Any = "what is it?", **fields: Any) -> Reply:
        messages = [{"role": "user", "content": content}]
        return self.post("/v1/chat/completions", {"model": "llava", "messages": messages} | fields)


Serve = Callable[..., "contextlib.AbstractContextManager[Client]"]


@pytest.fixture(scope="session")
def serve(bundle: Find) -> Serve:
    """`serve(**settings)`: a client of a server of two bundles, which ends behind the block."""
    from tightrope.runtime.server.config import ServeConfig
    from tightrope.runtime.server.serve import Server

    @contextlib.contextmanager
    def serving(
        *names: str, headers: dict[str, str] | None = None, **settings: Any
    ) -> Iterator[Client]:
        paths = [bundle(name) for name in names or ("llava", "llama")]
        config = ServeConfig(port=0, **settings)
        server = Server(paths, config, backend="onnxruntime", threads=1)
        ready = threading.Event()
        thread = threading.Thread(target=server.run, args=(ready.set,))
        thread.start()
        try:
            assert ready.wait(120)
            yield Client(int(server.address.rpartition(":")[2]), headers or {})
        finally:
            server.stop()
            thread.join(60)
            assert not thread.is_alive()

    return serving


@pytest.fixture(scope="module")
def client(serve: Serve) -> Iterator[Client]:
    """Of a server with everything as it is by default."""
    with serve() as client:
        yield client


def png(width: int = 30, height: int = 40, colour: int = 200) -> bytes:
    """A small picture, encoded."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.full((height, width, 3), colour, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.fixture(scope="session")
def picture() -> Callable[..., dict[str, Any]]:
    """`picture(30, 40)`: a part of a message that holds a picture of this size."""

    def part(width: int = 30, height: int = 40, colour: int = 200) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": data_url(png(width, height, colour))}}

    return part
