"""Who may ask: hashes of keys, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from tightrope.errors import InputError
from tightrope.folders import reaching

_LINE = re.compile(r"([0-9a-f]{64})\s+\*?(\S.*)")


class Keys:
    """The keys of a file; none of them is kept, only its hash."""

    def __init__(self, file: Path) -> None:
        """file: on each line the SHA-256 of a key in hexadecimal and a name, as `sha256sum` prints.

        Raises InputError for a file that cannot be read, or in which a line is none such.
        """
        with reaching("api-keys", file):
            content = file.read_bytes()
        self._names: dict[bytes, str] = {}
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            if (found := _LINE.fullmatch(line.strip())) is None:
                raise InputError(
                    f"api-keys has no key in line {number}; accepted: the SHA-256 of a key, 64 "
                    "hexadecimal digits, and a name"
                )
            self._names[bytes.fromhex(found[1])] = found[2]
        if not self._names:
            raise InputError("api-keys holds no key; add one, or nobody could ask")

    def name_of(self, authorization: str) -> str | None:
        """Whose key an Authorization header holds; None: nobody's."""
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        known = None
        for wanted, name in self._names.items():  # all of them, so that time says nothing
            if hmac.compare_digest(wanted, digest):
                known = name
        return known if scheme.lower() == "bearer" else None
