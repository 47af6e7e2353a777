"""What is said while the engine hangs: nothing comes of what runs, and what waits is not told."""

from __future__ import annotations

import asyncio

from tightrope.runtime.engine import Engine
from tightrope.runtime.server.refusal import LOG, Refused

SILENT_SECONDS = 120.0
"""After so long without a word of a running request its engine counts as hung."""
LOOK_SECONDS = 1.0


def refuse_if_silent(engine: Engine) -> None:
    """Raises Refused where the engine hangs."""
    silent = engine.silent_s()
    if silent > SILENT_SECONDS:
        raise Refused(
            503,
            f"nothing has come of the running request for {silent:.0f} s; restart the server",
            code="engine_silent",
        )


async def silence(engine: Engine) -> Refused:
    """Waits until the engine hangs; what is to be said then."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            refuse_if_silent(engine)
        except Refused as refused:
            LOG.error("a request is given up: %s", refused)
            return refused
