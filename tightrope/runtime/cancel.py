"""Asking a running request to stop, from any thread, for a reason."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tightrope.runtime.answer import FinishReason


class Cancel:
    """Asks a running call to stop; safe to ask from another thread, at any time."""

    def __init__(self) -> None:
        self.reason: FinishReason | None = None
        """Why the request is to stop; None while it may go on."""
        self._hook: Callable[[], object] | None = None

    def ask(self, reason: FinishReason = "cancelled") -> None:
        """Stop as soon as may be; the first reason counts."""
        self.reason = self.reason or reason
        if (hook := self._hook) is not None:
            hook()

    @contextlib.contextmanager
    def interrupting(self, hook: Callable[[], object]) -> Iterator[None]:
        """Inside, asking calls `hook`; at once if that was before."""
        self._hook = hook
        try:
            if self.reason is not None:
                hook()
            yield
        finally:
            self._hook = None


class Cancelled(Exception):
    """A call was stopped because it was asked to; never leaves the runtime."""
