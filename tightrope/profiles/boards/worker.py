"""A worker: one model of one bundle, which answers what a scheduler hands it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import distributed

from tightrope.profiles.boards.jobs import Serving
from tightrope.profiles.boards.scheduler import (
    CONNECT_SECONDS,
    RESOURCE,
    reaching,
    security_for,
)
from tightrope.runtime.key import latency_key

if TYPE_CHECKING:
    from tightrope.runtime.model import Model


def serve(
    url: str, model: Model, *, unencrypted: bool = False, ready: Callable[[str], None]
) -> None:
    """Measure for the scheduler at `url` until it goes, or until somebody ends the process.

    ready: called once the worker is known there, with the name that says its board and mode.
    Raises InputError for a `url` that is none or without certificates, and DeviceUnavailable where
    no scheduler answers.
    """
    security = security_for(url, "worker", unencrypted=unencrypted)
    key = latency_key(model.bundle, model.backend)
    name = f"{key.board}, {key.power_mode}, {socket.gethostname()}:{os.getpid()}"

    async def run() -> None:
        worker = distributed.Worker(
            url,
            name=name,
            nthreads=1,
            resources={RESOURCE: 1},
            security=security,
            plugins=(Serving(model),),
            memory_limit=0,  # Dask would pause and end a worker by what it counts itself
            death_timeout=CONNECT_SECONDS,
        )
        async with worker:
            ready(name)
            await worker.finished()

    with reaching(url):
        asyncio.run(run())
