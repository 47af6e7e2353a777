"""Pictures from the web: of hosts that whoever runs the server named, and by no way round.

An address in a request may lead anywhere: to this machine, into its network, to a host that sends
on to either, to a name that means another address the second time. Therefore only named hosts are
asked; a name is looked up once and must lead to a public address; the connection goes to that very
address; no redirect is followed; bytes and seconds are counted while they come.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from tightrope.errors import InputError

FETCH_SECONDS = 10.0
"""For a picture, from the connection to its last byte."""
PORTS = {"http": 80, "https": 443}
_PIECE_BYTES = 1 << 16


class TooLong(Exception):
    """There are more bytes than may be."""


@dataclass(frozen=True, slots=True)
class _Target:
    """Whom to ask for what."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def name(self) -> str:
        """As an allow-list and a Host header have it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


class Web:
    """Hosts that may be asked."""

    def __init__(self, hosts: Sequence[str]) -> None:
        """hosts: names or addresses, with ":port" where it is not the scheme's own."""
        self._hosts = frozenset(map(str.lower, hosts))

    def read(self, name: str, url: str, most_bytes: int) -> bytes:
        """What is at an address; name: of the field that gave it.

        Raises InputError where it may not be asked, or in the same words whatever else was wrong:
        nobody learns which addresses of a network answer. Raises TooLong beyond `most_bytes`.
        """
        try:
            target = _target(url)
        except ValueError:
            target = None
        if target is None or target.name not in self._hosts:
            raise InputError(
                f"{name} is a web address that is not fetched here; accepted: http and https "
                f"addresses of {', '.join(sorted(self._hosts))}, and data: addresses"
            )
        try:
            return _fetched(target, most_bytes)
        except (OSError, ValueError, http.client.HTTPException):
            raise InputError(
                f"{name} cannot be fetched: {target.name} did not answer with it in time; "
                "send a data: address"
            ) from None


def _target(url: str) -> _Target:
    """Raises ValueError for what two readers could understand in two ways."""
    if not url.isascii() or not url.isprintable() or set(url) & set("\\ "):
        raise ValueError
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError
    port = PORTS[parts.scheme] if parts.port is None else parts.port
    path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    return _Target(parts.scheme, parts.hostname, port, path)


def _fetched(target: _Target, most_bytes: int) -> bytes:
    with contextlib.closing(_connected(target)) as connection:

        def end() -> None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        # A timeout counts from byte to byte; this bounds them all together.
        ending = threading.Timer(FETCH_SECONDS, end)
        ending.daemon = True
        ending.start()
        try:
            return _content(connection, target, most_bytes)
        finally:
            ending.cancel()


def _connected(target: _Target) -> socket.socket:
    """To the first address that the name has now; raises ValueError where that is no public one."""
    family, _, _, _, address = socket.getaddrinfo(
        target.host, target.port, type=socket.SOCK_STREAM
    )[0]
    if not (_is_address(target.host) or _is_public(str(address[0]))):
        raise ValueError
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(FETCH_SECONDS)
        connection.connect(address)
        if target.scheme == "https":
            context = ssl.create_default_context()
            return context.wrap_socket(connection, server_hostname=target.host)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_address(host: str) -> bool:
    """Whether whoever runs the server named this very address."""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    return address.is_global and not address.is_multicast


def _content(connection: socket.socket, target: _Target, most_bytes: int) -> bytes:
    client = http.client.HTTPConnection(target.host, target.port)
    client.sock = connection  # nothing is looked up again
    headers = {"Host": target.name, "Accept": "image/*", "Accept-Encoding": "identity"}
    client.request("GET", target.path, headers=headers)
    response = client.getresponse()
    if response.status != 200 or response.getheader("content-encoding", "identity") != "identity":
        raise ValueError
    told, content = response.length, bytearray()
    if told is not None and told > most_bytes:
        raise TooLong
    while piece := response.read(min(_PIECE_BYTES, most_bytes - len(content) + 1)):
        content += piece
        if len(content) > most_bytes:
            raise TooLong
    if told is not None and len(content) < told:  # it was cut short
        raise ValueError
    return bytes(content)
