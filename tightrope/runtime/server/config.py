"""How a server is set up: where it listens, who may ask, and how much of what."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from tightrope.checks import check_type, check_whole, shown
from tightrope.configs import setting
from tightrope.errors import InputError
from tightrope.folders import reaching

_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
GOODBYE_SECONDS = 5
"""For answers that are running when the server is told to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """A server's address, keys and limits; raises InputError for what cannot be."""

    host: str = setting("127.0.0.1", "Address to listen on; any but this machine's own needs keys.")
    port: int = setting(8000, "Port to listen on; 0 takes a free one.")
    api_keys: Path | None = setting(
        None, "File of who may ask: the SHA-256 of a key and a name on each line."
    )
    images: Path | None = setting(
        None, "Folder whose files requests may name as file: addresses; none may if left out."
    )
    fetch: tuple[str, ...] = setting(
        (), "Host whose pictures are fetched, with :PORT if not the usual; none is if left out."
    )
    tls_certificate: Path | None = setting(None, "Certificate chain in PEM, for HTTPS.")
    tls_key: Path | None = setting(None, "Its private key in PEM.")
    max_body_mb: int = setting(16, "Longest body of a request, in MB.")
    max_image_mb: int = setting(12, "Longest encoded image, in MB.")
    max_images: int = setting(16, "Images of a request at most.")
    max_megapixels: int = setting(64, "Pixels of all images of a request, in millions.")
    max_tokens: int = setting(4096, "Longest answer that may be asked for.")
    max_answers: int = setting(8, "Answers to one prompt at most.")
    queue: int = setting(32, "Requests in work and waiting at most.")
    queue_per_client: int = setting(8, "Of these, from one key or one address.")
    memory_mb: int | None = setting(
        None, "Memory for this process, in MB; what is free when it starts if left out."
    )
    chunk_ms: int = setting(
        100, "Time of a call that reads a prompt: who is due before waits no longer."
    )

    def __post_init__(self) -> None:
        check_type("host", self.host, str, "an address or a name")
        check_whole("port", self.port, least=0, most=65535)
        for name in _COUNTS:
            check_whole(name.replace("_", "-"), getattr(self, name), least=1)
        if self.memory_mb is not None:
            check_whole("memory-mb", self.memory_mb, least=1)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise InputError("tls-certificate and tls-key belong together; give both or neither")
        if not self.is_local and self.api_keys is None:
            raise InputError(
                f"host is {shown(self.host)}, which other machines may reach; give --api-keys FILE "
                "with who may ask, or keep 127.0.0.1"
            )
        for host in self.fetch:
            if not isinstance(host, str) or not _HOST.fullmatch(host):
                raise InputError(
                    f"fetch is {shown(host)}; accepted: a name or an address, with :PORT if that "
                    "is not the usual one"
                )
        if self.images is not None:
            with reaching("images", self.images):
                is_folder = self.images.is_dir()
            if not is_folder:
                raise InputError(f"images is {shown(str(self.images))}, which is no folder")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


_COUNTS = (
    "max_body_mb",
    "max_image_mb",
    "max_images",
    "max_megapixels",
    "max_tokens",
    "max_answers",
    "queue",
    "queue_per_client",
    "chunk_ms",
)
