"""A server of bundles: bind the address, load, answer until told to stop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from tightrope.checks import shown
from tightrope.errors import InputError
from tightrope.foreign import translated
from tightrope.jetson.telemetry import telemetry_here
from tightrope.runtime.ceiling import Ceiling
from tightrope.runtime.heat import heat_of
from tightrope.runtime.server.app import Service
from tightrope.runtime.server.bundles import loaded, opened
from tightrope.runtime.server.config import ServeConfig
from tightrope.runtime.server.gate import HEAD_BYTES
from tightrope.runtime.server.protocol import Protocol

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
        ceiling: Ceiling | None = None,
    ) -> None:
        """ceiling: over heat and power, of all bundles together.

        Raises InputError for an address or a file that cannot be used, BundleError, and
        DeviceUnavailable for a ceiling that no sensor tells of.
        """
        self._bundles = opened(paths)
        self._backend, self._threads = backend, threads
        self._heat = heat_of(ceiling, telemetry_here())
        self._service = Service(config, self._bundles)
        self._server = uvicorn.Server(_settings(self._service, config))
        self._listener = _bound(config)
        host, port = self._listener.getsockname()[:2]
        scheme = "http" if config.tls_key is None else "https"
        self.address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        """Where it is found."""
        self._error: Exception | None = None

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Answer until `stop`, SIGINT or SIGTERM; ready: called when all bundles are loaded.

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
            for name, bundle in self._bundles.items():
                parts = loaded(name, bundle, self._backend, self._threads, self._heat)
                self._service.loaded[name] = parts
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
