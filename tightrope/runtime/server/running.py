"""A request between the engine's thread and the event loop.

Its pieces are waited for on a thread of its own, and arrive in order on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

from starlette.types import Receive

from tightrope.runtime.answer import Answer, Piece
from tightrope.runtime.engine import Engine
from tightrope.runtime.server.silence import silence
from tightrope.runtime.stream import Stream


class Gone(Exception):
    """Nobody waits for the answer any more."""


class Running:
    """One request at work; iterate it for pieces."""

    def __init__(self, stream: Stream) -> None:
        """stream: handed to the engine already."""
        self._stream, self._loop = stream, asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
        threading.Thread(target=self._run, name="tightrope request", daemon=True).start()

    def _run(self) -> None:
        try:
            for piece in self._stream:
                self._put(piece)
        except BaseException as error:  # raised where it is waited for
            self._put(error)

    def _put(self, item: Piece | BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, item)

    def close(self, error: Exception | None = None) -> None:
        """End it within a token; whoever iterates it is told why, or that nobody waits."""
        self._stream.close()
        self._pieces.put_nowait(error or Gone())

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while True:
            item = await self._pieces.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if item.answer is not None:
                return

    async def answer(self) -> Answer:
        """The finished answer."""
        async for piece in self:
            if piece.answer is not None:
                return piece.answer
        raise AssertionError("the last piece carries the answer")


@contextlib.asynccontextmanager
async def watched(running: Running, receive: Receive, engine: Engine) -> AsyncIterator[Running]:
    """Inside, the request ends when its client is gone or its engine hangs, outside in any case."""

    async def until_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        running.close()

    async def until_silent() -> None:
        running.close(await silence(engine))

    watches = [asyncio.ensure_future(watch()) for watch in (until_gone, until_silent)]
    try:
        yield running
    finally:
        for watch in watches:
            watch.cancel()
        running.close()
