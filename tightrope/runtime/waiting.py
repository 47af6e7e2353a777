"""What a device has promised: which requests it will run, in which order, and how long they take.

    now | running: what is left | earliest deadline | next | … | without a deadline, as they came

A new request is told what stands before it, and how long it may take so that those behind it, which
were promised their deadlines, still keep them.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from tightrope.runtime.cancel import Cancel

PATIENCE_S = 60.0
"""A request without a deadline lets those pass that are due within this time of its coming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A request's claim on its device, in seconds of the clock."""

    due: float
    """Whose is earlier runs first."""
    latest_start: float = math.inf
    """By then it has to run to keep what it was promised; infinite where nothing was."""
    expected_s: float = 0.0
    """What it takes, in one of two cases."""
    late_s: float = 0.0
    """In 99 of 100."""
    call_s: float | None = None
    """It lets those run that are due before, after a call of so long at most; None: it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a new request meets."""

    waiting_ms: float = 0.0
    """Until it runs, in 99 of 100 cases."""
    room_ms: float = math.inf
    """It may take so long, or somebody behind it misses the deadline that was promised."""
    others: int = 0
    """Requests that have a deadline and are not done: the device is to be shared with them."""
    busy_ms: float = 0.0
    """Until all of them are done, in 99 of 100 cases."""


IDLE = Load()


class Claimant(Protocol):
    """A request."""

    @property
    def cancel(self) -> Cancel:
        """Asked when nobody wants the answer any more."""


class Waiting:
    """Requests that were admitted and are not done.

    One that nobody holds any more is none of them, nor one that was cancelled before it ran.
    """

    def __init__(self) -> None:
        self._claims: weakref.WeakKeyDictionary[Claimant, Claim] = weakref.WeakKeyDictionary()
        self._starts: weakref.WeakKeyDictionary[Claimant, float] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self.deciding = threading.Lock()
        """Held from asking for the load to adding the claim: two may not take the same time."""

    def load(self, due: float, now: float) -> Load:
        """What a request that is due then would meet."""
        with self._lock:
            running, waiting = self._parts(now)
        before = [claim for claim in waiting if claim.due <= due]
        behind = [claim for claim in waiting if claim.due > due]
        ahead = [*_in_the_way(running, due), *before]
        room = math.inf
        for place, claim in enumerate(behind):
            first = [*_in_the_way(running, claim.due), *before, *behind[:place]]
            slack = claim.latest_start - now - _late_s(first)
            if slack >= 0:  # who is late already is not made so by anybody
                room = min(room, slack)
        sharing = list(filter(_is_promised, (*running, *waiting)))
        return Load(
            waiting_ms=1e3 * _late_s(ahead),
            room_ms=1e3 * room,
            others=len(sharing),
            busy_ms=1e3 * _late_s([*running, *waiting]),
        )

    def patient_due(self, now: float) -> float:
        """When a request without a deadline is due: behind all that were promised theirs."""
        with self._lock:
            promised = [claim.due for claim in self._claims.values() if _is_promised(claim)]
        return max([now + PATIENCE_S, *promised])

    def add(self, request: Claimant, claim: Claim) -> None:
        """It was admitted."""
        with self._lock:
            self._claims[request] = claim

    def start(self, request: Claimant, now: float) -> None:
        """It runs from now on."""
        with self._lock:
            self._starts[request] = now

    def finish(self, request: Claimant) -> None:
        """It is done, whatever came of it."""
        with self._lock:
            self._claims.pop(request, None)
            self._starts.pop(request, None)

    def _parts(self, now: float) -> tuple[list[Claim], list[Claim]]:
        """What is left of those that run, and those that wait in the order of their turns."""
        running, waiting = [], []
        for request, claim in self._claims.items():
            if (started := self._starts.get(request)) is None:
                if request.cancel.reason is None:
                    waiting.append(claim)
                continue
            spent = now - started
            expected, late = (max(0.0, s - spent) for s in (claim.expected_s, claim.late_s))
            running.append(replace(claim, expected_s=expected, late_s=late))
        return running, sorted(waiting, key=lambda claim: claim.due)


def _is_promised(claim: Claim) -> bool:
    return claim.latest_start < math.inf


def _in_the_way(running: Iterable[Claim], due: float) -> Iterator[Claim]:
    """What is left of those that run before somebody who is due then has the device."""
    for claim in running:
        if claim.call_s is None or claim.due <= due:
            yield claim
        else:
            late = min(claim.late_s, claim.call_s)
            yield replace(claim, expected_s=min(claim.expected_s, late), late_s=late)


def _late_s(claims: Iterable[Claim]) -> float:
    """What they take together in 99 of 100 cases: not all are late at once."""
    claims = list(claims)
    expected = math.fsum(claim.expected_s for claim in claims)
    return expected + math.hypot(*(claim.late_s - claim.expected_s for claim in claims))
