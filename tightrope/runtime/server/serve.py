"""A server of bundles: bind the address, load, answer until told to stop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from tightrope.bundle import Bundle
from tightrope.checks import shown
from tightrope.errors import InputError
from tightrope.foreign import translated
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.server.app import Service
from tightrope.runtime.server.bundles import loaded, opened
from tightrope.runtime.server.config import ServeConfig
from tightrope.runtime.server.gate import HEAD_BYTES
from tightrope.runtime.server.messages import MB
from tightrope.runtime.server.protocol import Protocol
from tightrope.runtime.server.shelf import Shelf

CONNECTIONS = 256
"""Open at once; what comes beyond is turned away with a 503."""
GOODBYE_SECONDS = 5
"""For answers that are running when the server is told to stop."""


class Server:
    """Bundles behind one address; bound when it is made, it answers inside `run`."""

    def __init__(
        self,
        paths: Sequence[Path],
        config: ServeConfig,
        *,
        backend: str = "auto",
        threads: int | None = None,
    ) -> None:
        """Raises InputError for an address or a file that cannot be used, and BundleError."""

        def load(name: str, bundle: Bundle) -> Loaded:
            return loaded(name, bundle, backend, threads, config.chunk_ms)

        memory_bytes = None if config.memory_mb is None else config.memory_mb * MB
        self._shelf = Shelf(opened(paths), load, backend, memory_bytes)
        self._server = uvicorn.Server(_settings(Service(config, self._shelf), config))
        self._listener = _bound(config)
        host, port = self._listener.getsockname()[:2]
        scheme = "http" if config.tls_key is None else "https"
        self.address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        """Where it is found."""
        self._error: Exception | None = None

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Answer until `stop`, SIGINT or SIGTERM; ready: called when the bundles are loaded.

        Raises what loading a bundle raises.
        """
        loading = threading.Thread(target=self._load, args=(ready,), daemon=True)
        loading.name = "tightrope loading"
        with self._listener:
            loading.start()
            self._server.run(sockets=[self._listener])
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Take no more requests, and end."""
        self._server.should_exit = True

    def _load(self, ready: Callable[[], None]) -> None:
        try:
            self._shelf.fill()
            ready()
        except Exception as error:  # raised by `run`, which ends by it
            self._error = error
            self.stop()


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
