"""HTTP on a socket, as uvicorn does it on h11, for clients that mean no good.

What uvicorn leaves open: a head that never ends, a body that goes on behind its refusal, and a
response that nobody takes.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from tightrope.runtime.server.gate import ABORT

HEAD_SECONDS = 10.0
"""From a connection, or the response before, to the end of a request's head."""


class Protocol(H11Protocol):
    """One connection."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.scope is not None:
            self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]

    def on_response_complete(self) -> None:
        self._expect_head()
        super().on_response_complete()

    def _expect_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
