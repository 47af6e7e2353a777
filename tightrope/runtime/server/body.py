"""A request's body: bytes that are counted and timed while they come, then JSON that is no trap."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from anyio import fail_after
from starlette.requests import ClientDisconnect, Request

from tightrope.checks import shown
from tightrope.runtime.server.refusal import Refused

PIECE_SECONDS = 10.0
"""Without a byte for so long, a body is given up."""
BODY_SECONDS = 120.0
"""From its first byte to its last."""
MOST_LEVELS = 32


async def read_body(request: Request, most_bytes: int) -> bytearray:
    """The body; raises Refused for one that is too long, too slow, or of another kind."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # What a page of a browser may send to any address unasked is never of this kind.
    if kind != "application/json":
        raise Refused(415, "content-type is not application/json; set it", code="content_type")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":  # what it unpacks to could be of any length
        raise Refused(
            415,
            f"content-encoding is {shown(coding)}; send the body as it is",
            code="content_encoding",
        )
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and len(length) < 20 and int(length) > most_bytes:
        raise _too_long(most_bytes)
    try:
        with fail_after(BODY_SECONDS):
            return await _pieces(request, most_bytes)
    except TimeoutError:
        raise Refused(
            408, "the body did not come in time; send it faster", code="slow_body"
        ) from None
    except ClientDisconnect:
        raise Refused(400, "the body was cut short", code="body_cut") from None


async def _pieces(request: Request, most_bytes: int) -> bytearray:
    content, pieces = bytearray(), request.stream().__aiter__()
    while True:
        try:
            with fail_after(PIECE_SECONDS):
                content += await pieces.__anext__()
        except StopAsyncIteration:
            return content
        if len(content) > most_bytes:
            raise _too_long(most_bytes)


def parsed(content: bytes | bytearray) -> Any:
    """What a body says in JSON; raises Refused for what is none, too deep, or says a name twice."""
    try:
        value = json.loads(content, parse_constant=_no_number, object_pairs_hook=_unique)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # of JSON, of UTF-8, and of integers with thousands of digits
        raise Refused(400, f"the body is not JSON: {_brief(error)}", code="not_json") from None
    _check_depth(value)
    return value


def _brief(error: ValueError) -> str:
    """What is wrong and where, without what stands there."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    return "it is no UTF-8" if isinstance(error, UnicodeError) else str(error)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return values


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [item for outer in level for item in _inside(outer)]
        if not level:
            return
    raise _too_deep()


def _inside(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, (dict, list))]


def _too_deep() -> Refused:
    return Refused(
        400, f"the body is nested deeper than {MOST_LEVELS} levels; flatten it", code="too_deep"
    )


def _too_long(most_bytes: int) -> Refused:
    return Refused(
        413,
        f"the body is longer than {most_bytes} bytes; send less, or smaller images",
        code="body_too_long",
    )
