"""Pieces of an answer leave the server one by one, none of them waiting for another's arrival."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tightrope.runtime.server.config import ServeConfig
from tightrope.runtime.server.serve import _bound


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_small_pieces_are_sent_at_once(host: str) -> None:
    async def option() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepting = writer.get_extra_info("socket")
            found.set_result(accepting.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = _bound(ServeConfig(host=host, port=0))
        async with await asyncio.start_server(accepted, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            try:
                return await found
            finally:
                writer.close()

    assert asyncio.run(option()) != 0
