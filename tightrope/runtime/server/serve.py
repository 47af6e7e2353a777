"""A server of bundles: bind the address, load, answer until told to stop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from anyio.to_thread import current_default_thread_limiter

from tightrope.checks import shown
from tightrope.errors import InputError
from tightrope.foreign import translated
from tightrope.jetson.telemetry import telemetry_here
from tightrope.runtime.ceiling import Ceiling
from tightrope.runtime.heat import heat_of
from tightrope.runtime.server.app import Service
from tightrope.runtime.server.bundles import Loader, opened
from tightrope.runtime.server.config import GOODBYE_SECONDS, ServeConfig
from tightrope.runtime.server.gate import HEAD_BYTES
from tightrope.runtime.server.manager import Manager
from tightrope.runtime.server.messages import MB
from tightrope.runtime.server.protocol import Protocol
from tightrope.runtime.server.refusal import LOG
from tightrope.runtime.server.shelf import Shelf

CONNECTIONS = 256
"""Open at once; what comes beyond is turned away with a 503."""
LAST_WORDS_SECONDS = 1.0
"""For telling those whose answers were not finished in time."""


class Server:
    """Bundles behind one address; bound when it is made, it answers inside `run`."""

    def __init__(
        self,
        paths: Sequence[Path],
        config: ServeConfig,
        *,
        backend: str = "auto",
        threads: int | None = None,
        ceiling: Ceiling | None = None,
    ) -> None:
        """ceiling: over heat and power, of all bundles together.

        Raises InputError for an address or a file that cannot be used, BundleError, and
        DeviceUnavailable for a ceiling that no sensor tells of.
        """
        self._paths, self._config, self._manager = paths, config, Manager()
        loader = Loader(
            self._manager,
            backend=backend,
            threads=threads,
            chunk_ms=config.chunk_ms,
            heat=heat_of(ceiling, telemetry_here()),
        )
        memory_bytes = None if config.memory_mb is None else config.memory_mb * MB
        bundles = opened(paths, self._manager)
        self._shelf = Shelf(bundles, loader.load, backend, memory_bytes)
        settings = _settings(Service(config, self._shelf), config)
        self._server = _Uvicorn(settings, self._begun, self._manager.stopping)
        self._listener = _bound(config)
        host, port = self._listener.getsockname()[:2]
        scheme = "http" if config.tls_key is None else "https"
        self.address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        """Where it is found."""
        self._error: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exchange: concurrent.futures.Future[None] | None = None
        self._exchanging = asyncio.Lock()

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Answer until `stop`, SIGINT or SIGTERM; ready: called when the bundles are loaded.

        SIGHUP does what `reload` does, unless it is a terminal's. Raises what loading a bundle
        raises.
        """
        loading = threading.Thread(target=self._load, args=(ready,), daemon=True)
        loading.name = "tightrope loading"
        with self._listener:
            loading.start()
            self._server.run(sockets=[self._listener])
        self._manager.close()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Take no more requests, and end."""
        self._server.should_exit = True

    def reload(self) -> None:
        """Have bundles exchanged for what lies at their paths now; asked while it runs."""
        assert self._loop is not None
        # Held here: an event loop does not hold its tasks.
        self._exchange = asyncio.run_coroutine_threadsafe(self._reload(), self._loop)

    def _begun(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Those that wait, for a bundle that is loaded, must not take the threads of all others.
        threads = current_default_thread_limiter()
        threads.total_tokens = max(threads.total_tokens, self._config.queue)
        # A terminal that is closed sends it as well, and means the end.
        if threading.current_thread() is threading.main_thread() and not os.isatty(0):
            self._loop.add_signal_handler(signal.SIGHUP, self.reload)

    def _load(self, ready: Callable[[], None]) -> None:
        try:
            self._shelf.fill()
            self._manager.ready(self._status())
            ready()
        except Exception as error:  # raised by `run`, which ends by it
            self._error = error
            self.stop()

    async def _reload(self) -> None:
        async with self._exchanging:  # whoever asks meanwhile may have something newer
            if not self._shelf.filled:
                LOG.warning("not reloaded: the bundles are still being loaded")
                return
            self._manager.reloading()
            try:
                changed = await asyncio.to_thread(self._exchanged)
                result = f"reloaded {', '.join(changed) or 'nothing, all is as it was'}"
                LOG.info("%s", result)
            # The outermost place: what answered before goes on answering.
            except Exception as error:
                result = f"not reloaded: {error}"
                LOG.error("%s", result)
                if not self._shelf.loaded:
                    self._error = error
                    self.stop()
                    return
            self._manager.ready(f"{self._status()}; {result}")

    def _exchanged(self) -> list[str]:
        """The names of what was exchanged."""
        return self._shelf.exchange(opened(self._paths, self._manager))

    def _status(self) -> str:
        return f"answering on {self.address}: {', '.join(self._shelf.bundles)}"


class _Uvicorn(uvicorn.Server):
    """uvicorn, which tells that its loop has begun, and that it is being stopped."""

    def __init__(
        self, config: uvicorn.Config, begun: Callable[[], None], stopping: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._begun, self._stopping = begun, stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._begun()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)
        if cancelled := set(self.server_state.tasks):  # each has a last event to send
            await asyncio.wait(cancelled, timeout=LAST_WORDS_SECONDS)


def _settings(service: Service, config: ServeConfig) -> uvicorn.Config:
    settings = uvicorn.Config(
        service.app(),
        http=Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_graceful_shutdown=GOODBYE_SECONDS,
        ssl_certfile=config.tls_certificate,
        ssl_keyfile=config.tls_key,
    )
    what = "tls-certificate and tls-key cannot be used"
    with translated(InputError, what, "give a certificate chain and its key in PEM"):
        settings.load()
    return settings


def _bound(config: ServeConfig) -> socket.socket:
    """A socket on the address; raises InputError where that is taken, closed or none."""
    what = f"host {shown(config.host)} and port {config.port} cannot be listened on"
    with translated(InputError, what, "choose others"):
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Named, or asyncio would not switch off Nagle's algorithm: an answer of several pieces
        # would wait 40 ms for a client to acknowledge the first.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except BaseException:
            listener.close()
            raise
        return listener
