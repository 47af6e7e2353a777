"""Who may speak here: checks of a request's head, before its body is read.

head -> headers, host, key -> a place in the queue -> the route
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tightrope.runtime.server.config import ServeConfig
from tightrope.runtime.server.keys import Keys
from tightrope.runtime.server.refusal import TWO_LENGTHS, Refused

MOST_HEADERS, HEAD_BYTES = 64, 32 << 10
SEND_SECONDS = 30.0
"""A client that takes nothing for so long is left."""
OPEN_PATHS = ("/healthz", "/readyz")
"""Asked by who watches over the process; they say nothing of anyone's requests."""
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
CLIENT, ABORT = "tightrope.client", "tightrope.abort"
"""Under these names the scope says whose the request is, and how its connection is cut."""


class Gate:
    """Lets requests through to `app`, or refuses them by their heads."""

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        """Raises InputError for a file of keys that is none."""
        self._app, self._local = app, config.is_local
        self._hosts = (*LOCAL_HOSTS, config.host)
        self._keys = None if config.api_keys is None else Keys(config.api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            scope[CLIENT] = self._client(scope)
        except Refused as refused:
            response = JSONResponse(refused.to_dict(), refused.status, refused.headers)
            await response(scope, receive, send)
            return

        async def patient(message: Message) -> None:
            # Cut off, it counts as gone, and nobody waits for it any more.
            late = asyncio.get_running_loop().call_later(SEND_SECONDS, scope[ABORT])
            try:
                await send(message)
            finally:
                late.cancel()

        await self._app(scope, receive, patient)

    def _client(self, scope: Scope) -> str:
        """Whose request it is: a key's name, else an address; raises Refused."""
        headers = Headers(scope=scope)
        size = sum(len(name) + len(value) for name, value in headers.raw)
        if len(headers) > MOST_HEADERS or size > HEAD_BYTES:
            raise Refused(
                431,
                f"the request has more than {MOST_HEADERS} headers, or {HEAD_BYTES} bytes of them; "
                "send fewer",
            )
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy in front that goes by the other one sees another request end here.
            raise Refused(
                400,
                "the body's length is told twice; send content-length or transfer-encoding",
                code=TWO_LENGTHS,
            )
        if self._keys is None:
            # A page of a browser may have its own name lead here: whoever is asked by it is not.
            if self._local and not _is_one_of(self._hosts, headers.get("host", "")):
                raise Refused(421, "host is not this machine's; ask localhost, or set up keys")
            return scope["client"][0] if scope.get("client") else ""
        name = self._keys.name_of(headers.get("authorization", ""))
        if name is None and scope["path"] not in OPEN_PATHS:
            raise Refused(
                401,
                "no key, or an unknown one; send it as Authorization: Bearer KEY",
                code="invalid_api_key",
            )
        return name or ""


def _is_one_of(names: Sequence[str], host: str) -> bool:
    """Whether a Host header is one of these, with or without a port."""
    name, colon, port = host.rpartition(":")
    return host in names or bool(colon and port.isdecimal() and name in names)


class Places:
    """How many requests are in work, and whose."""

    def __init__(self, config: ServeConfig) -> None:
        self._most, self._most_each = config.queue, config.queue_per_client
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Of all clients."""
        return self._taken.total()

    @contextlib.contextmanager
    def taking(self, client: str) -> Iterator[None]:
        """Inside, the client has one request more; raises Refused where that is too many."""
        if self._taken[client] >= self._most_each:
            raise Refused(
                429,
                f"you have {self._most_each} requests in work; wait for one of them",
                code="too_many_requests",
                retry_s=1.0,
            )
        if self.taken >= self._most:
            raise Refused(
                429, f"{self._most} requests wait already", code="queue_full", retry_s=1.0
            )
        self._taken[client] += 1
        try:
            yield
        finally:
            self._taken[client] -= 1
            self._taken += Counter()  # or names of clients that are gone would stay
