"""What is not answered: a status, OpenAI's shape of an error, and our sentence.

No trace, no content of a file and no name of one that was not asked for is ever part of it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection
from typing import Any

from tightrope.errors import (
    BackendError,
    BudgetUnreachable,
    BundleError,
    DeviceUnavailable,
    InputError,
    ProfileError,
)

LOG = logging.getLogger("tightrope.server")

SLOWED_S = 5.0
"""After so long a machine that was too slow for a deadline may be asked again."""
_NAME = re.compile(r"(\w+)(?:[\[.].*)?")
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
TWO_LENGTHS = "two_lengths"
"""Code of a request whose end is not where others may see it."""


class Refused(Exception):
    """A request that gets a status and a sentence instead of an answer."""

    def __init__(
        self,
        status: int,
        text: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_s: float | None = None,
        fastest_ms: float | None = None,
    ) -> None:
        """code: for programs. param: the field that is wrong. retry_s: when to come again.

        fastest_ms: what the fastest point would take.
        """
        super().__init__(text)
        self.status, self.code, self.param = status, code, param
        self.retry_s, self.fastest_ms = retry_s, fastest_ms

    def to_dict(self) -> dict[str, Any]:
        """As OpenAI's clients expect it."""
        kind = _TYPES.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        fastest = {} if self.fastest_ms is None else {"fastest_ms": self.fastest_ms}
        return {"error": {**error, **fastest}}

    @property
    def headers(self) -> dict[str, str]:
        """Those that belong to the status."""
        if self.status == 401:
            return {"www-authenticate": "Bearer"}
        if self.code == TWO_LENGTHS:
            return {"connection": "close"}  # what comes behind may be anybody's
        if self.retry_s is None:
            return {}
        return {"retry-after": str(max(1, math.ceil(self.retry_s)))}


def refusal(error: BaseException, fields: Collection[str]) -> Refused:
    """What to say of an error.

    fields: of the request; our sentences begin with what is wrong.
    """
    if isinstance(error, Refused):
        return error
    text = str(error)
    if isinstance(error, InputError):
        # "messages[0] has …", "image messages[0].image_url is …", "the prompt holds …"
        words = (_NAME.fullmatch(word) for word in text.split(maxsplit=2)[:2])
        named = [word[1] for word in words if word and word[1] in fields]
        return Refused(400, text, param=named[0] if named else None)
    if isinstance(error, BudgetUnreachable):
        if error.retry_ms is not None:
            fastest, retry_s = error.fastest_ms, error.retry_ms / 1e3
            return Refused(429, text, code="busy", retry_s=retry_s, fastest_ms=fastest)
        if error.slowed:
            fastest = error.fastest_ms
            return Refused(503, text, code="slowed", retry_s=SLOWED_S, fastest_ms=fastest)
        return Refused(422, text, code="budget_unreachable", fastest_ms=error.fastest_ms)
    if isinstance(error, ProfileError):
        return Refused(400, text, code="not_measured")
    if isinstance(error, (BackendError, BundleError, DeviceUnavailable)):
        LOG.error("a request failed: %s", error)
        return Refused(503, text, code="engine_failed")
    LOG.error("a request failed", exc_info=error)
    return Refused(500, "internal error; the server's log says where", code="internal_error")
