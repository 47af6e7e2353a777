"""How long a new request will wait for those that were submitted before it."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.runtime.stopwatch import Clock


class Waiting:
    """Requests that are planned and not done; one that nobody holds any more is none of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends: weakref.WeakKeyDictionary[object, float] = weakref.WeakKeyDictionary()
        self._spends: weakref.WeakKeyDictionary[object, float] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def ms(self) -> float:
        """What is left of all of them."""
        with self._lock:
            running = sum(max(0.0, end - self._clock()) for end in self._ends.values())
            return 1e3 * running + sum(self._spends.values())

    def submit(self, request: object, expected_ms: float) -> None:
        """It will take so long once it runs."""
        with self._lock:
            self._spends[request] = expected_ms

    def start(self, request: object) -> None:
        """It runs from now on."""
        with self._lock:
            self._ends[request] = self._clock() + self._spends.pop(request, 0.0) / 1e3

    def finish(self, request: object) -> None:
        """It is done, whatever came of it."""
        with self._lock:
            self._spends.pop(request, None)
            self._ends.pop(request, None)
