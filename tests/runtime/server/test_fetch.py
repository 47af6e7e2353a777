"""Pictures from the web: whom the server asks, and all the ways round that lead nowhere."""

from __future__ import annotations

import base64
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tightrope.errors import InputError
from tightrope.runtime.server import fetch
from tightrope.runtime.server.fetch import TooLong, Web

Part = Callable[..., dict[str, Any]]
CONTENT = b"\x89PNG and so on"
ABOUT = "messages[0].image_url"


class Pages(http.server.BaseHTTPRequestHandler):
    """What a host of the web may answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self.server.asked  # type: ignore[attr-defined]
        asked.append((self.path, self.headers["host"]))
        status, headers, content = self.server.pages.get(  # type: ignore[attr-defined]
            self.path, (404, {}, b"")
        )
        self.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        slow = self.path == "/slow"
        for piece in [bytes([byte]) for byte in content] if slow else [content]:
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(0.05 * slow)
        self.close_connection = self.path == "/short"

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def host() -> Iterator[Any]:
    """A server of pages; `.asked` notes what it was asked."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.asked, port = [], server.server_port  # type: ignore[attr-defined]
    server.pages = {  # type: ignore[attr-defined]
        "/x.png": (200, {}, CONTENT),
        "/?a=%20b": (200, {}, CONTENT),
        "/away": (302, {"location": f"http://127.0.0.1:{port}/x.png"}, b""),
        "/error": (500, {}, CONTENT),
        "/packed": (200, {"content-encoding": "gzip"}, CONTENT),
        "/short": (200, {"content-length": "1000"}, CONTENT),
        "/long": (200, {}, bytes(2000)),
        "/slow": (200, {}, bytes(1000)),
    }
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(20)


def test_a_named_address_is_asked_for_just_that(host: Any) -> None:
    here = f"127.0.0.1:{host.server_port}"
    web = Web([here])
    assert web.read(ABOUT, f"http://{here}/x.png", 1000) == CONTENT
    assert web.read(ABOUT, f"HTTP://{here}?a=%20b#part", 1000) == CONTENT
    assert host.asked == [("/x.png", here), ("/?a=%20b", here)]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x.png",
        "http://127.0.0.1:{port}0/x.png",
        "http://localhost:{port}/x.png",
        "http://2130706433:{port}/x.png",
        "http://0x7f000001:{port}/x.png",
        "http://127.1:{port}/x.png",
        "http://[::ffff:127.0.0.1]:{port}/x.png",
        "http://a@127.0.0.1:{port}/x.png",
        "http://127.0.0.1:{port}@evil.example/x.png",
        "http://127.0.0.1:{port}\\@evil.example/x.png",
        "http://127.0.0.1:{port}\t/x.png",
        "http://127.0.0.1:{port}/x.png\r\nx: y",
        "http://127.0.0.1.:{port}/x.png",
        "http://evil.example/127.0.0.1:{port}",
        "http://127.0.0.1:{port}.evil.example/",
        "http://①27.0.0.1:{port}/x.png",
        "https://127.0.0.1:99999/x.png",
        "http:///x.png",
        "http://",
        "http://[/",
        "ftp://127.0.0.1:{port}/x.png",
    ],
)
def test_what_is_not_named_is_not_asked(host: Any, url: str) -> None:
    web = Web([f"127.0.0.1:{host.server_port}"])
    with pytest.raises(InputError, match="not fetched here"):
        web.read(ABOUT, url.format(port=host.server_port), 1000)
    assert host.asked == []


def test_whatever_goes_wrong_is_said_in_the_same_words(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "FETCH_SECONDS", 0.5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()[1]
    here = f"127.0.0.1:{host.server_port}"
    look_up = socket.getaddrinfo

    def looked_up(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "nobody.example":
            raise socket.gaierror(-2, "Name or service not known")
        return look_up(name, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    web = Web([here, f"localhost:{host.server_port}", f"127.0.0.1:{nobody}", "nobody.example"])
    said = set()
    for url in (
        *(f"http://{here}/{page}" for page in ("away", "error", "packed", "short", "slow", "no")),
        f"http://localhost:{host.server_port}/x.png",  # a name that leads here
        f"https://{here}/x.png",  # where nobody speaks TLS
        f"http://127.0.0.1:{nobody}/x.png",
        "http://nobody.example/x.png",
    ):
        began = time.monotonic()
        with pytest.raises(InputError) as caught:
            web.read(ABOUT, url, 1000)
        assert time.monotonic() - began < 5
        name = url.split("/")[2]
        said.add(str(caught.value).replace(name, "HOST"))
    assert len(said) == 1
    assert ("/x.png", f"localhost:{host.server_port}") not in host.asked


def test_bytes_are_counted_while_they_come(host: Any) -> None:
    here = f"127.0.0.1:{host.server_port}"
    with pytest.raises(TooLong):
        Web([here]).read(ABOUT, f"http://{here}/long", 1999)
    host.pages["/long"] = (200, {"transfer-encoding": "chunked"}, b"7d0\r\n" + bytes(2000))
    with pytest.raises(TooLong):
        Web([here]).read(ABOUT, f"http://{here}/long", 100)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "0.0.0.0"]
)
def test_a_name_is_looked_up_once_and_leads_to_public_addresses_only(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    reached: list[Any] = []
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    answers = iter([("93.184.216.34", socket.AF_INET), (address, family)])

    def look_up(name: str, port: int, **_: Any) -> list[Any]:
        looked_up.append(name)
        found, kind = next(answers)
        return [(kind, socket.SOCK_STREAM, 6, "", (found, port))]

    def connect(self: socket.socket, where: Any) -> None:
        reached.append(where)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket.socket, "connect", connect)
    web = Web(["pictures.example"])
    for _ in range(2):  # the second time the name means somebody inside
        with pytest.raises(InputError, match="cannot be fetched"):
            web.read(ABOUT, "http://pictures.example/x.png", 1000)
    assert looked_up == ["pictures.example"] * 2
    assert reached == [("93.184.216.34", 80)]


def test_a_server_fetches_what_it_was_told_to_and_bounds_all_of_a_request(
    serve: Any, host: Any, picture: Part
) -> None:
    part = picture(30, 40)
    content = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    here = f"127.0.0.1:{host.server_port}"
    host.pages["/real.png"] = (200, {}, content)
    host.pages["/large.png"] = (200, {}, content + bytes(600_000))

    def linked(page: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": f"http://{here}{page}"}}

    with serve("llava", fetch=(here,), max_body_mb=1) as client:
        expected = client.chat([part], max_tokens=4).json["choices"]
        assert client.chat([linked("/real.png")], max_tokens=4).json["choices"] == expected
        host.asked.clear()
        long = client.chat([linked("/large.png")] * 2)
        assert (long.status, long.error["code"]) == (413, "image_too_long")
        wrong = client.chat([linked("/error")])
        assert wrong.status == 400 and wrong.error["param"] == "messages"
        other = client.chat([{"type": "image_url", "image_url": {"url": "http://10.0.0.1/x"}}])
        assert other.status == 400 and "not fetched here" in other.error["message"]
    assert host.asked[:2] == [("/large.png", here)] * 2
