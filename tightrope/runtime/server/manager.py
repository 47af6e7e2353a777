"""What the service manager hears of the server, if one started it: systemd's notifications.

sd_notify(3). Outside a service nothing is sent. All times are of the monotonic clock: setting the
other one changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import sdnotify

from tightrope.runtime.server.refusal import LOG

FIRST_STEP_S = 60.0
"""That a bundle's loading may take, whatever its size."""
LOADED_BYTES_PER_S = 20e6
"""And the slowest that its files are read, hashed and made ready with."""
BEATS = 5
"""Signs of life in a watchdog's time."""
LONGEST_CALLS = 3
"""The watchdog waits for at least so many of the longest call that was seen."""


def loading_s(num_bytes: int) -> float:
    """How long a bundle of so many bytes may take to be ready."""
    return FIRST_STEP_S + num_bytes / LOADED_BYTES_PER_S


class Manager:
    """Whoever started this process and waits for word of it."""

    def __init__(self) -> None:
        """Told by NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, as systemd sets them."""
        listens = "NOTIFY_SOCKET" in os.environ
        own = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = os.environ.get("WATCHDOG_USEC", "") if listens and own else ""
        self._configured_s = int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0
        self.watchdog_s = self._configured_s
        """After so long without a sign of life the process is ended; 0 where nobody watches."""
        self._longest_s = 0.0
        self._answering = False
        self._beaten = -float("inf")
        self._notifier = sdnotify.SystemdNotifier() if listens else None

    @property
    def watches(self) -> bool:
        """Whether signs of life are wanted."""
        return self._configured_s > 0

    def loading(self, what: str, seconds: float) -> None:
        """It is not ready for so much longer; `what` is told unless others answer meanwhile."""
        told = [] if self._answering else [f"STATUS=loading {what}"]
        self._say(f"EXTEND_TIMEOUT_USEC={_microseconds(seconds)}", *told)

    def ready(self, status: str) -> None:
        """Requests are answered, for the first time or again."""
        self._answering = True
        self._say("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Bundles are exchanged; `ready` follows."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._say("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def stopping(self) -> None:
        """No more requests are taken."""
        self._say("STOPPING=1", "STATUS=finishing answers")

    def beat(self) -> None:
        """A sign of life, given no oftener than needed."""
        now = time.monotonic()
        if self.watches and now - self._beaten >= self.watchdog_s / BEATS:
            self._beaten = now
            self._say("WATCHDOG=1")

    def took(self, seconds: float) -> None:
        """A call of the engine took so long: the watchdog has to wait for others like it."""
        if seconds > self._longest_s:
            self._longest_s = seconds
            if self.watches and LONGEST_CALLS * seconds > self.watchdog_s:
                LOG.info("a call took %.1f s: the watchdog waits for three such", seconds)
                self._wait(LONGEST_CALLS * seconds)

    @contextlib.contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Inside, the watchdog waits for calls that load graphs, up to so long."""
        self._wait(max(seconds, self.watchdog_s))
        try:
            yield
        finally:
            self._wait(max(self._configured_s, LONGEST_CALLS * self._longest_s))

    def close(self) -> None:
        """Say nothing more."""
        notifier, self._notifier = self._notifier, None
        if notifier is not None and notifier.socket is not None:  # it is where none listened
            notifier.socket.close()

    def _wait(self, seconds: float) -> None:
        if self.watches and seconds != self.watchdog_s:
            self.watchdog_s = seconds
            self._say(f"WATCHDOG_USEC={_microseconds(seconds)}", "WATCHDOG=1")

    def _say(self, *lines: str) -> None:
        if self._notifier is not None:
            self._notifier.notify("\n".join(lines))


def _microseconds(seconds: float) -> int:
    return int(seconds * 1e6)
