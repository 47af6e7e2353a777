"""How a scheduler is reached: encrypted, unless somebody says that it need not be."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import distributed

from tightrope.errors import DeviceUnavailable, InputError
from tightrope.foreign import translated

RESOURCE = "tightrope"
"""What workers of ours offer to Dask, one of it each: a job takes it whole."""
CONNECT_SECONDS = 15
_VARIABLES = "DASK_DISTRIBUTED__COMM__TLS__"


def security_for(url: str, role: str, *, unencrypted: bool) -> Any:
    """Dask's own settings of certificates, read where Dask reads them.

    role: client or worker. Raises InputError for a scheduler without encryption that nobody asked
    for, and for certificates that are not named.
    """
    scheme = url.partition("://")[0]
    if scheme == "tcp" and unencrypted:
        return distributed.Security(require_encryption=False)
    if scheme == "tcp":
        raise InputError(
            f"scheduler {url} is not encrypted: whoever reaches it runs any program on every "
            "worker; accepted: tls://HOST:PORT, or --unencrypted on a network of your own"
        )
    if scheme != "tls":
        raise InputError(f"scheduler is {url!r}; accepted: tls://HOST:PORT")
    security = distributed.Security(require_encryption=True)
    named = {
        "CA_FILE": security.tls_ca_file,
        f"{role.upper()}__CERT": getattr(security, f"tls_{role}_cert"),
        f"{role.upper()}__KEY": getattr(security, f"tls_{role}_key"),
    }
    if missing := [f"{_VARIABLES}{name}" for name, value in named.items() if not value]:
        raise InputError(
            f"{url} needs certificates: name them in {', '.join(missing)}, or in Dask's own "
            "configuration"
        )
    return security


def reaching(url: str) -> AbstractContextManager[None]:
    """Inside, whatever Dask raises is a DeviceUnavailable that names the scheduler."""
    return translated(
        DeviceUnavailable,
        f"the scheduler at {url} cannot be used",
        "`dask scheduler` starts one; what was measured so far stays",
    )
