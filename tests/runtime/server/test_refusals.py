"""What is not answered: each wrong field, body, image, file, key and client, and how it is said."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import os
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tightrope.runtime.server import body, gate, protocol

Part = Callable[..., dict[str, Any]]
USER = [{"role": "user", "content": "?"}]
KEY = "a key of many characters"


NUMBERS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ("max_tokens", "max_completion_tokens", "n", "kv_budget", "resolution"),
        (0, -1, 2**31, 1e308, "many", True, 1.5),
    ),
    "seed": (-1, 2**64, 1e308, "x", 0.5),
    "temperature": (-1, "hot", True, 10**400),
    "top_p": (0, -1, 1.1, 2**31, 1e308, "x"),
    "top_k": (-1, 1.5, 1e308, "x", True),
    "min_p": (-1, 2, 1e308, "x"),
    "repetition_penalty": (0, -1, 1e308, "x"),
    "presence_penalty": (-3, 2**31, 1e308, []),
    "frequency_penalty": (-3, 1e308, False),
    "logit_bias": ({"x": 1}, {"-1": 1}, {"999": 1}, {"1": 101}, {"1": "x"}, [], {"9" * 50: 1}),
    "logprobs": (1, "x", -1),
    "top_logprobs": (-1, 21, 2**31, 1e308, "x"),
    "deadline_ms": (0, -1, "soon", 10**400, []),
    "first_token_ms": (0, -1, "soon", 10**400, []),
    "min_quality": (-1, 2, "x"),
    "thinking_tokens": (-1, "x", 5),
    "keep": (0, -1, 2**31, 1e308, "x", "1e308%", "nan%", [], {}),
}
BESIDE: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "min_quality": {"deadline_ms": 9},
    "keep": {"selector": "uniform"},
}
"""What a field needs beside it."""


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        *(
            ({name: value, **BESIDE.get(name, {})}, name)
            for name, values in NUMBERS.items()
            for value in values
        ),
        ({"selector": "nobody", "keep": 4}, "selector"),
        ({"selector": 4, "keep": 4}, "selector"),
        ({"policy": "nobody", "kv_budget": 64}, "policy"),
        ({"kv_budget": []}, "kv_budget"),
        ({"stop": ""}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stream": 1}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": {"include": True}}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"moderation": {"model": "x"}}, "moderation"),
        ({"task": "x"}, "task"),
        ({"if_unreachable": "refuse"}, "if_unreachable"),
        ({"kv_budget": 64, "sinks": 10**400}, "kv_budget"),
        ({"if_unreachable": "panic", "deadline_ms": 9}, "if_unreachable"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"store": True}, "store"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"chat_template_kwargs": {}}, "chat_template_kwargs"),
        ({"ignore_eos": True}, "ignore_eos"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [1]}, "messages"),
        ({"messages": [{"role": "god", "content": "?"}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": ["text"]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "?", "template": "x"}]}, "messages"),
    ],
)
def test_a_wrong_field_is_named(client: Any, fields: dict[str, Any], param: str | None) -> None:
    reply = client.chat("?", **fields)
    assert reply.status == 400, reply.content
    assert reply.error["type"] == "invalid_request_error"
    unknown = {"chat_template", "chat_template_kwargs", "ignore_eos"}
    expected = None if param in unknown else param
    assert reply.error["param"] == expected
    if param is not None:
        assert param in reply.error["message"] and len(reply.error["message"]) < 400


def test_models_are_found_by_name_or_refused(client: Any) -> None:
    reply = client.chat(model="gpt-5")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert "llava" in reply.error["message"]
    assert client.chat(model=None).status == 400
    assert client.get("/v1/models/../../etc/passwd").status == 404


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'"messages"',
        b'{"messages": NaN}',
        b'{"max_tokens": Infinity}',
        b'{"deadline_ms": NaN, "messages": [{"role": "user", "content": "?"}]}',
        b'{"deadline_ms": -Infinity, "messages": [{"role": "user", "content": "?"}]}',
        b'{"max_tokens": ' + b"9" * 5000 + b"}",
        b'{"temperature": 1e999, "messages": [{"role": "user", "content": "?"}]}',
        b'{"n": 1, "n": 2}',
        b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"metadata": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"messages": "\\ud800"}',
    ],
)
def test_a_body_that_is_no_request_is_refused(client: Any, content: bytes) -> None:
    kind = {"content-type": "application/json"}
    reply = client.ask("POST", "/v1/chat/completions", content, kind)
    assert reply.status == 400
    assert len(reply.error["message"]) < 400


def test_a_body_of_another_kind_is_refused(client: Any) -> None:
    """What a page of a browser may send anywhere unasked is text/plain at most."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = {"content-type": kind}
        reply = client.ask("POST", "/v1/chat/completions", json.dumps({"messages": USER}), headers)
        assert reply.status == 415
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    body = gzip.compress(json.dumps({"messages": USER}).encode())
    reply = client.ask("POST", "/v1/chat/completions", body, packed)
    assert (reply.status, reply.error["code"]) == (415, "content_encoding")
    foreign = client.get("/v1/models", {"host": "somewhere.example:8000"})
    assert foreign.status == 421
    assert client.get("/v1/models", {"host": "localhost:1"}).status == 200


def test_addresses_and_methods_that_are_none(client: Any) -> None:
    assert client.get("/v1/nothing").status == 404 and client.get("/v1/nothing").error
    wrong = client.get("/v1/chat/completions")
    assert wrong.status == 405 and wrong.error and wrong.headers["allow"] == "POST"
    # Nothing is taken by upload, and no page of another site is told that it may ask.
    for method, path in (("PUT", "/v1/models/llava"), ("POST", "/v1/files"), ("DELETE", "/v1")):
        assert client.ask(method, path, b"x").status in (404, 405)
    asking = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    preflight = client.ask("OPTIONS", "/v1/chat/completions", headers=asking)
    assert preflight.status == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]
    assert client.ask("HEAD", "/v1/models").content == b""


def test_long_bodies_are_refused_while_they_come(serve: Any) -> None:
    with serve("llama", max_body_mb=1) as client:
        told = {"content-type": "application/json", "content-length": str(10**12)}
        with contextlib.closing(client.connect()) as connection:
            connection.putrequest("POST", "/v1/chat/completions")
            for name, value in told.items():
                connection.putheader(name, value)
            connection.endheaders()
            assert connection.getresponse().status == 413  # before a byte of it
        sent = 0
        with socket.create_connection(("127.0.0.1", client.port), timeout=30) as raw:
            raw.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
                b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            piece = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
            raw.settimeout(0.05)
            answer = b""
            while not answer and sent < 64 << 20:
                raw.settimeout(30)
                raw.sendall(piece)
                sent += 0x8000
                raw.settimeout(0.001)
                with contextlib.suppress(TimeoutError):
                    answer = raw.recv(4096)
        assert b" 413 " in answer and sent < 8 << 20
        assert client.chat(model="llama", max_tokens=1).status == 200


def bomb(width: int, height: int) -> bytes:
    """A PNG of so many pixels that weighs nothing; only its header is true."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return len(content).to_bytes(4, "big") + checked + zlib.crc32(checked).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    pixels = zlib.compress(bytes(1000))
    ends = chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + ends


WIDE_GIF = b"GIF89a" + b"\xff\xff" * 2 + bytes(3) + b"," + bytes(4) + b"\xff\xff" * 2 + b"\0\x02\0;"
"""Of 65,535 x 65,535 pixels."""
WIDE_WEBP = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\x3f\0" * 2
"""Of 16,384 x 16,384."""


def image(url: object, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def encoded(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("part", "status"),
    [
        (image("http://127.0.0.1:22/x.png"), 400),
        (image("https://example.org/x.png"), 400),
        (image("HTTP://0x7f000001/x.png"), 400),
        (image("ftp://example.org/x.png"), 400),
        (image("gopher://x"), 400),
        (image("file:///etc/passwd"), 400),
        (image("/etc/passwd"), 400),
        (image("\\\\host\\share"), 400),
        (image(""), 400),
        (image(5), 400),
        (image("data:"), 400),
        (image("data:image/png;base64,!!!"), 400),
        (image("data:image/png;base64,AAAA"), 400),
        (image(encoded(bomb(30_000, 30_000))), 400),
        (image(encoded(bomb(2**31 - 1, 2**31 - 1))), 400),
        (image(encoded(bomb(100, 100))), 400),  # cut short
        (image(encoded(b"GIF89a" + bytes(20))), 400),
        (image(encoded(WIDE_GIF)), 400),
        (image(encoded(WIDE_WEBP)), 400),
        (image("data:,x", detail="high"), 400),
        (image("data:,x", fetch=True), 400),
        ({"type": "image_url", "image_url": "data:,x"}, 400),
        ({"type": "image_url"}, 400),
        ({"type": "image"}, 400),
    ],
)
def test_an_image_that_is_none_or_elsewhere_is_refused(
    client: Any, part: dict[str, Any], status: int
) -> None:
    reply = client.chat([part, {"type": "text", "text": "what?"}])
    assert reply.status == status and reply.error["param"] == "messages"
    assert "root:" not in reply.error["message"]


def test_images_are_limited_by_number_bytes_and_pixels_of_all(serve: Any, picture: Part) -> None:
    limits = {"max_images": 3, "max_image_mb": 1, "max_megapixels": 2, "max_body_mb": 8}
    with serve("llava", **limits) as client:
        few = client.chat([picture(20, 20)] * 3, max_tokens=1)
        assert few.status == 200
        for count in (4, 1000):
            many = client.chat([picture(20, 20)] * count, max_tokens=1)
            assert (many.status, many.error["code"]) == (413, "too_many_images")
        long = client.chat([image(encoded(bytes(10**6 + 1)))], max_tokens=1)
        assert (long.status, long.error["code"]) == (413, "image_too_long")
        large = client.chat([picture(1000, 1000)] * 3, max_tokens=1)
        assert (large.status, large.error["code"]) == (413, "too_many_pixels")
        assert {reply.error["param"] for reply in (many, long, large)} == {"messages"}


def test_files_are_read_below_one_folder_only(serve: Any, picture: Part, tmp_path: Path) -> None:
    content = base64.b64decode(picture()["image_url"]["url"].partition(",")[2])
    allowed = tmp_path / "allowed"
    (allowed / "inside").mkdir(parents=True)
    (allowed / "inside" / "a b.png").write_bytes(content)
    (tmp_path / "secret.png").write_bytes(content)
    (allowed / "link.png").symlink_to(tmp_path / "secret.png")
    (allowed / "way").symlink_to(tmp_path)
    (allowed / "inside.png").symlink_to(allowed / "inside" / "a b.png")
    os.mkfifo(allowed / "pipe.png")
    with serve("llava", images=allowed, max_image_mb=1) as client:
        (allowed / "long.png").write_bytes(bytes(10**6 + 1))

        def ask(url: str) -> Any:
            return client.chat([image(url)], max_tokens=1)

        here = allowed.as_uri()
        assert ask(f"{here}/inside/a%20b.png").status == 200
        said = set()
        for url in (
            f"{here}/../secret.png",
            f"{here}/inside/../../secret.png",
            f"{here}/%2e%2e/secret.png",
            f"{here}/link.png",
            f"{here}/way/secret.png",
            f"{here}/inside.png",
            f"{here}/pipe.png",
            f"{here}/long.png",
            f"{here}/inside",
            f"{here}/nothing.png",
            f"{here}/a%00b.png",
            f"{here}/{'x' * 5000}.png",
            (tmp_path / "secret.png").as_uri(),
            f"{allowed.as_uri()}other/x.png",
            "file:///etc/passwd",
            "file://elsewhere/etc/passwd",
            "file:relative.png",
            here,
            f"{here}/",
        ):
            reply = ask(url)
            assert reply.status == 400, url
            said.add(reply.error["message"])
        assert len(said) == 1  # nobody learns what is there


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    file.write_text(f"# who may ask\n{'0' * 64}  nobody\n\n{digest}  camera\n")
    return file


def test_a_key_is_asked_for_where_there_are_keys(serve: Any, keys: Path) -> None:
    with serve("llama", api_keys=keys) as client:
        ask = {"messages": USER, "max_tokens": 1}
        for wrong in ("", "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", "Bearer " + "0" * 64, KEY):
            headers = {"authorization": wrong} if wrong else {}
            reply = client.post("/v1/chat/completions", ask, headers)
            assert (reply.status, reply.error["type"]) == (401, "authentication_error")
            assert reply.headers["www-authenticate"] == "Bearer"
            assert client.get("/metrics", headers).status == 401
            assert client.get("/v1/models", headers).status == 401
        right = {"authorization": f"Bearer {KEY}"}
        assert client.post("/v1/chat/completions", ask, right).status == 200
        assert client.get("/v1/models", {**right, "host": "board.example"}).status == 200
        assert client.get("/healthz").status == client.get("/readyz").status == 200


def test_who_asks_too_much_waits_and_others_do_not(serve: Any, keys: Path) -> None:
    extra = hashlib.sha256(b"another").hexdigest()
    keys.write_text(f"{keys.read_text()}{extra} another\n")
    with serve("llama", api_keys=keys, queue_per_client=1, queue=2) as client:
        client.headers["authorization"] = f"Bearer {KEY}"
        kind = {"content-type": "application/json", **client.headers}
        body = {"messages": USER, "kv_budget": 64, "max_tokens": 4096, "stream": True}
        body["temperature"] = 2.0
        with contextlib.closing(client.connect()) as busy:
            busy.request("POST", "/v1/chat/completions", json.dumps(body), kind)
            busy.getresponse().read(50)
            refused = client.chat(model="llama", max_tokens=1)
            assert (refused.status, refused.error["code"]) == (429, "too_many_requests")
            assert refused.error["type"] == "rate_limit_error"
            assert int(refused.headers["retry-after"]) >= 1
            other = {"authorization": "Bearer another"}
            counted = client.post("/v1/chat/completions/count", {"messages": USER}, other)
            assert counted.status == 200


def raw(client: Any, content: bytes, timeout: float = 20) -> bytes:
    """All that a connection answers to these bytes until it is closed."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=timeout) as connection:
        connection.sendall(content)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                received += piece
        return received


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 100 + b"\r\n", b"431"),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", b"431"),
        (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n{}    ", b"400"),
        (
            HEAD
            + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            + b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",  # is not answered
            b"400",
        ),
        (HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", b"400"),
        (HEAD + b"content-length: -1\r\n\r\n", b"400"),
        (HEAD + b"content-length: 1e3\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"400"),
    ],
)
def test_heads_that_are_none_or_endless(
    client: Any, content: bytes, status: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    # A head that comes in pieces is refused before it is whole, and then by another status.
    answered = raw(client, content)
    assert answered.split()[1] in (status, b"400") and answered.count(b"HTTP/1.1 ") == 1
    assert client.get("/healthz").status == 200


def test_slow_heads_and_slow_bodies_are_given_up(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(body, "PIECE_SECONDS", 0.3)
    assert raw(client, b"GET /healthz HT") == b""
    assert raw(client, b"GET /healthz HTTP/1.1\r\nx: y\r\n") == b""
    sent = HEAD + b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    assert raw(client, sent).split()[1] == b"408"
    monkeypatch.setattr(body, "PIECE_SECONDS", 60.0)
    monkeypatch.setattr(body, "BODY_SECONDS", 0.5)
    assert raw(client, sent).split()[1] == b"408"
    # Nor does one hold a connection that goes on sending what was refused already.
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection:
        connection.sendall(HEAD + b"content-type: text/plain\r\ncontent-length: 9999999\r\n\r\n")
        assert b" 415 " in connection.recv(4096)
        began = time.monotonic()
        with pytest.raises(OSError):  # reset or broken, as it comes
            while time.monotonic() < began + 20:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < began + 10


def test_a_reader_that_never_reads_is_left(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SEND_SECONDS", 0.5)
    with serve("llama", max_tokens=10**6) as client:
        asked = {"messages": USER, "kv_budget": 64, "max_tokens": 10**6, "stream": True}
        content = json.dumps({**asked, "temperature": 2.0}).encode()
        length = f"content-length: {len(content)}\r\n\r\n".encode()
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            reader.connect(("127.0.0.1", client.port))
            reader.sendall(HEAD + b"content-type: application/json\r\n" + length + content)
            end = time.monotonic() + 60
            seen = False
            while time.monotonic() < end:
                text = client.get("/metrics").content.decode()
                working = "tightrope_requests_in_work 1.0" in text
                seen |= working
                if seen and not working:
                    break
                time.sleep(0.05)
            assert seen and not working
        assert client.chat(model="llama", max_tokens=1).status == 200


def test_tls_by_files(serve: Any, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl is not here to make a certificate")
    with serve("llama", tls_certificate=certificate, tls_key=key) as client:
        context = ssl.create_default_context(cafile=str(certificate))
        with (
            socket.create_connection(("127.0.0.1", client.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
        ):
            wrapped.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b" 200 " in wrapped.recv(4096)


def test_no_error_of_a_bug_shows_where_it_was(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tightrope.runtime.server import answering

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail in /home/somebody")

    monkeypatch.setattr(answering, "start", broken)
    reply = client.chat()
    assert reply.status == 500 and reply.error["code"] == "internal_error"
    assert "secret" not in reply.content.decode()
    monkeypatch.undo()
    assert client.chat(max_tokens=1).status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_says_so_and_goes_on(
    client: Any, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tightrope.errors import BackendError
    from tightrope.runtime.backends.onnxruntime import OnnxRuntimeBackend

    def broken(*_: object) -> None:
        raise BackendError("the graph decoder failed")

    monkeypatch.setattr(OnnxRuntimeBackend, "prefill", broken)
    reply = client.chat(stream=stream)
    assert reply.status == 503 and reply.error["code"] == "engine_failed"
    monkeypatch.undo()
    calls: list[int] = []
    decode = OnnxRuntimeBackend.decode

    def later(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise BackendError("the graph decoder failed")
        return decode(*arguments)

    monkeypatch.setattr(OnnxRuntimeBackend, "decode", later)
    reply = client.chat(stream=stream, max_tokens=10)
    if stream:  # what was said cannot be unsaid
        assert reply.status == 200
        last = reply.content.decode().strip().rpartition("data: ")[2]
        assert json.loads(last)["error"]["code"] == "engine_failed"
    else:
        assert reply.status == 503
    monkeypatch.undo()
    assert client.chat(max_tokens=1).status == 200


def test_an_engine_that_hangs_is_not_ready(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tightrope.runtime.backends.onnxruntime import OnnxRuntimeBackend
    from tightrope.runtime.server import silence

    monkeypatch.setattr(silence, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.1)
    let_go = threading.Event()
    prefill = OnnxRuntimeBackend.prefill

    def hangs(*arguments: Any) -> Any:
        let_go.wait(30)
        return prefill(*arguments)

    monkeypatch.setattr(OnnxRuntimeBackend, "prefill", hangs)
    replies: list[Any] = []
    asking = [
        threading.Thread(target=lambda s=s: replies.append(client.chat(max_tokens=1, stream=s)))
        for s in (False, True)
    ]
    for thread in asking:
        thread.start()
    end = time.monotonic() + 20
    while (reply := client.get("/readyz")).status == 200 and time.monotonic() < end:
        time.sleep(0.05)
    assert (reply.status, reply.error["code"]) == (503, "engine_silent")
    assert client.get("/healthz").status == 200
    for thread in asking:  # what ran and what waits is told so, and so is who comes now
        thread.join(20)
    assert [(r.status, r.error["code"]) for r in replies] == [(503, "engine_silent")] * 2
    assert client.chat(max_tokens=1).error["code"] == "engine_silent"
    let_go.set()
    end = time.monotonic() + 20
    while client.get("/readyz").status != 200 and time.monotonic() < end:
        time.sleep(0.05)
    monkeypatch.undo()
    assert client.chat(max_tokens=1).status == 200
