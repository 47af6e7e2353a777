"""A thousand hostile requests: is each refused, with no trace, no 500, and within memory?

    python benchmarks/serving_fuzz.py reference.bundle

Drawn from a seed over every class of published advisories against servers of this kind. What has to
be refused and is answered, a status of 500 or more, a trace in a reply or in the server's words,
and a process that is gone or has grown, each count as a failure; it exits with 1 for any.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import io
import json
import socket
import sys
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record
from PIL import Image
from serving import CHAT, Client, server

Rng = np.random.Generator
KEY = "the benchmark's own key"
WHOLE = ("max_tokens", "n", "seed", "top_k", "kv_budget", "resolution", "sinks", "recent")
NUMBERS = ("temperature", "top_p", "min_p", "deadline_ms", "first_token_ms", "repetition_penalty")
MOST_GROWTH = 200e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "allowed").mkdir()
        (folder / "secret.png").write_bytes(png(rng))
        (folder / "allowed" / "link.png").symlink_to(folder / "secret.png")
        keys = folder / "keys"
        keys.write_text(f"{hashlib.sha256(KEY.encode()).hexdigest()} benchmark\n")
        options = ("--api-keys", str(keys), "--images", str(folder / "allowed"))
        options += ("--fetch", "pictures.example", "--fetch", "127.0.0.1:1")
        limits = ("--max-body-mb", "2", "--max-image-mb", "1", "--max-images", "4")
        with server(str(given.bundle), *options, *limits) as port:
            before = resident(port)
            names = list(CLASSES)
            for number in range(given.requests):
                kind = names[number % len(names)]
                request = CLASSES[kind](rng, folder)
                reply = sent(port, request)
                outcome = judged(reply)
                outcomes[kind][outcome] += 1
                if not outcome.startswith("4"):
                    failures.append(f"{number} {kind}: {outcome}: {request[:200]!r}")
            grown = resident(port) - before
            alive = plain(port)
    if grown > MOST_GROWTH:
        failures.append(f"the process has grown by {grown / 1e6:.0f} MB")
    if alive != "200":
        failures.append(f"the server does not answer any more: {alive}")
    told = {kind: dict(counts) for kind, counts in outcomes.items()}
    record(
        "serving_fuzz",
        {"requests": given.requests, "seed": given.seed, "grown_mb": round(grown / 1e6, 1)}
        | {"outcomes": told, "failures": failures},
    )
    sys.exit(bool(failures))


def resident(port: int) -> float:
    client = Client(port)
    _, page = client.send("GET", "/metrics", None, {"authorization": f"Bearer {KEY}"})
    (line,) = [
        row for row in page.splitlines() if row.startswith(b"process_resident_memory_bytes ")
    ]
    return float(line.split()[1])


def sent(port: int, content: bytes) -> bytes:
    """What a connection answers to these bytes, if it does within some seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        reply = b""
        with contextlib.suppress(OSError):  # refused while it came: the answer is there
            connection.sendall(content)
        with contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                reply += piece
        return reply


def judged(reply: bytes) -> str:
    """The status, or what is wrong with the reply."""
    if b"Traceback" in reply or b'File "' in reply:
        return "a trace"
    return reply.split(b" ", 2)[1].decode("ascii", "replace") if reply else "400 without words"


def plain(port: int) -> str:
    body = json.dumps({"messages": [{"role": "user", "content": "?"}], "max_tokens": 1})
    return judged(sent(port, framed(body.encode())))


def framed(body: bytes, *headers: str, key: str = KEY, path: str = CHAT) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"authorization: Bearer {key}",
        f"content-length: {len(body)}",
        "connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chat(content: Any = "?", **fields: Any) -> bytes:
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1, **fields}
    return framed(json.dumps(body).encode())


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def png(rng: Rng, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def url_of(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def pick(rng: Rng, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def damaged_json(rng: Rng, folder: Path) -> bytes:
    body = bytearray(json.dumps({"messages": [{"role": "user", "content": "what is it"}]}).encode())
    cut = int(rng.integers(1, len(body)))
    return framed(bytes(body[:cut]) + rng.bytes(int(rng.integers(0, 20))).replace(b"}", b"") + b"{")


def wrong_kinds(rng: Rng, folder: Path) -> bytes:
    field = pick(rng, ("messages", "model", "stop", "stream", "stream_options", "keep", "selector"))
    return chat(**{field: pick(rng, (7.5, [[]], {"a": {}}, [None, 1], -3, {"": []}))})


def numbers(rng: Rng, folder: Path) -> bytes:
    wrong = ("text", [], {}, True, -1, 1e308 if rng.random() < 0.5 else -(2**31))
    field = pick(rng, WHOLE + NUMBERS)
    if field in WHOLE:
        return chat(**{field: pick(rng, (*wrong[:5], 0.5, 1e308))})
    if field == "temperature":
        return chat(temperature=pick(rng, (-1, "x", [], True)))
    if field in ("deadline_ms", "first_token_ms"):
        return chat(**{field: pick(rng, (0, -1, "x", [], True, 10**400))})
    return chat(**{field: pick(rng, (-1, "x", [], True, 1e308))})


def no_numbers(rng: Rng, folder: Path) -> bytes:
    value = pick(rng, ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "0x10", "01"))
    field = pick(rng, WHOLE + NUMBERS)
    return framed(f'{{"messages":[{{"role":"user","content":"?"}}],"{field}":{value}}}'.encode())


def unknown_fields(rng: Rng, folder: Path) -> bytes:
    name = "".join(map(chr, rng.integers(33, 0x2FF, int(rng.integers(1, 40))))) + "_"
    known = ("chat_template", "chat_template_kwargs", "lora", "engine", "__class__", "grammar")
    return chat(**{pick(rng, (name, *known)): pick(rng, (1, "{{ 1 }}", {"a": 1}))})


def deep(rng: Rng, folder: Path) -> bytes:
    depth = int(rng.integers(40, 200_000))
    opened, closed = pick(rng, ((b"[", b"]"), (b'{"a":', b"}")))
    return framed(b'{"metadata":' + opened * depth + b"1" + closed * depth + b"}")


def too_long(rng: Rng, folder: Path) -> bytes:
    body = b" " * int(rng.integers(2_000_001, 3_000_000))
    if rng.random() < 0.5:
        return framed(body)
    head = framed(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def bad_images(rng: Rng, folder: Path) -> bytes:
    content = bytearray(png(rng, pick(rng, ("PNG", "JPEG", "BMP", "TIFF"))))
    kept = bytes(content[: int(rng.integers(0, len(content) // 2))])
    return chat([image(url_of(kept + rng.bytes(8)))])


def bombs(rng: Rng, folder: Path) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    width, height = (int(side) for side in rng.integers(8_001, 2**31 - 1, 2))
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    pixels = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
    return chat([image(url_of(content))])


def many_images(rng: Rng, folder: Path) -> bytes:
    return chat([image(url_of(png(rng)))] * int(rng.integers(5, 300)))


def addresses(rng: Rng, folder: Path) -> bytes:
    host = pick(
        rng, ("127.0.0.1", "0x7f000001", "2130706433", "[::1]", "localhost", "a@169.254.169.254")
    )
    scheme = pick(
        rng, ("http", "https", "HTTP", "ftp", "gopher", "jar", "dict", "javascript", "blob")
    )
    return chat(
        [image(f"{scheme}://{host}:{int(rng.integers(1, 65536))}/{rng.bytes(4).hex()}.png")]
    )


def paths(rng: Rng, folder: Path) -> bytes:
    up = pick(rng, ("..", "%2e%2e", "%2E.", ".%2e", "....//.."))
    inside = (folder / "allowed").as_uri()
    return chat(
        [
            image(
                pick(
                    rng,
                    (
                        f"{inside}/{up}/secret.png",
                        f"{inside}/x/{up}/{up}/secret.png",
                        f"{inside}/link.png",
                        f"{inside}/%00.png",
                        (folder / "secret.png").as_uri(),
                        "file:///etc/passwd",
                        "file:///proc/self/environ",
                        "/etc/passwd",
                        f"file://{pick(rng, ('a', '127.0.0.1', '..'))}/etc/passwd",
                        inside,
                    ),
                )
            )
        ]
    )


def keys(rng: Rng, folder: Path) -> bytes:
    body = json.dumps({"messages": [{"role": "user", "content": "?"}]}).encode()
    wrong = (
        KEY[:-1],
        KEY + " x",
        "",
        "\xff" * 40,
        hashlib.sha256(KEY.encode()).hexdigest(),
        "a" * 5000,
    )
    return framed(body, key=pick(rng, wrong))


def heads(rng: Rng, folder: Path) -> bytes:
    body = b"{}"
    return pick(
        rng,
        (
            framed(body, *(f"x-{number}: y" for number in range(int(rng.integers(70, 300))))),
            framed(body, "x: " + "y" * int(rng.integers(40_000, 100_000))),
            framed(body, "content-length: 7"),
            framed(body).replace(b"content-length: 2", b"content-length: +2"),
            framed(body).replace(b"HTTP/1.1", b"HTTP/9.9"),
            framed(body).replace(b"host: localhost\r\n", b""),
            framed(body).replace(b"POST", b"P\x00ST"),
            rng.bytes(int(rng.integers(1, 500))) + b"\r\n\r\n",
        ),
    )


def messages(rng: Rng, folder: Path) -> bytes:
    many = int(rng.integers(20_000, 200_000))
    return framed(
        json.dumps(
            {
                "messages": pick(
                    rng,
                    (
                        [],
                        [{}],
                        [{"role": "user"}],
                        [{"role": pick(rng, ("root", "User", "function")), "content": "?"}],
                        [
                            {
                                "role": "user",
                                "content": [{"type": "video_url", "video_url": {"url": "x"}}],
                            }
                        ],
                        [{"role": "user", "content": [{"type": "image"}]}],
                        [{"role": "user", "content": {"type": "text"}}],
                        [{"role": "user", "content": "\ud800"}],
                        [{"role": "user", "content": "where " * many}],
                        [{"role": "user", "content": "?", "tool_calls": {"a": 1}, "extra": 1}],
                    ),
                )
            }
        ).encode()
    )


CLASSES: dict[str, Callable[[Rng, Path], bytes]] = {
    "damaged JSON": damaged_json,
    "wrong kinds": wrong_kinds,
    "numbers out of range": numbers,
    "numbers that are none": no_numbers,
    "unknown fields and templates": unknown_fields,
    "depth": deep,
    "long bodies": too_long,
    "damaged images": bad_images,
    "image bombs": bombs,
    "too many images": many_images,
    "addresses to fetch": addresses,
    "paths": paths,
    "keys": keys,
    "heads": heads,
    "messages": messages,
}


if __name__ == "__main__":
    main()
