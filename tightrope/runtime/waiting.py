"""What a device has promised: which requests it will run, in which order, and how long they take.

    now | the call that runs | earliest deadline | next | … | without a deadline, as they came

Whoever runs lets those run that are due before, between two calls. A new request is told what
stands before it, and how long it may take so that those behind it, which were promised their
deadlines, still keep them. It is also told with how many it has to share: who took all the time
until the deadline would leave none to those that are still to come. As many are expected as the
newest requests met at most: those who came while nobody was there teach the opposite soon.
"""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from tightrope.runtime.cancel import Cancel

PATIENCE_S = 60.0
"""A request without a deadline lets those pass that are due within this time of its coming."""

NEWEST = 16
"""Requests whose meetings are remembered, for `REMEMBERED_S` at most."""
REMEMBERED_S = 10.0


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
    call_s: float = 0.0
    """Its longest call in 99 of 100: behind each of them it lets those run that are due before."""


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


@dataclass
class _Run:
    """A request that has begun, in seconds of the clock."""

    since: float | None
    """When it last went on; None while it lets others run."""
    spent_s: float = 0.0
    """Before that."""

    def spent(self, now: float) -> float:
        return self.spent_s + (0.0 if self.since is None else now - self.since)


class Waiting:
    """Requests that were admitted and are not done.

    One that nobody holds any more is none of them, nor one that was cancelled before it ran.
    """

    def __init__(self) -> None:
        self._claims: weakref.WeakKeyDictionary[Claimant, Claim] = weakref.WeakKeyDictionary()
        self._runs: weakref.WeakKeyDictionary[Claimant, _Run] = weakref.WeakKeyDictionary()
        self._met: deque[tuple[float, int]] = deque(maxlen=NEWEST)
        """When a request came, and how many others that have a deadline it met."""
        self._lock = threading.Lock()
        self.deciding = threading.Lock()
        """Held from asking for the load to adding the claim: two may not take the same time."""

    def load(self, due: float, now: float) -> Load:
        """What a request that is due then would meet."""
        with self._lock:
            running, all_left = self._left(now)
        before = [claim for claim in all_left if claim.due <= due]
        behind = [claim for claim in all_left if claim.due > due]
        first = _Time().plus(*before)
        waiting, room = first.plus(*_in_a_call(running, due)).late_s, math.inf
        for claim in behind:
            slack = claim.latest_start - now - first.plus(*_in_a_call(running, claim.due)).late_s
            if slack >= 0:  # who is late already is not made so by anybody
                room = min(room, slack)
            first = first.plus(claim)
        return Load(
            waiting_ms=1e3 * waiting,
            room_ms=1e3 * room,
            others=sum(map(_is_promised, all_left)),
            busy_ms=1e3 * first.late_s,
        )

    def meet(self, load: Load, now: float) -> None:
        """A request that met this load has come, whether or not it will be admitted."""
        with self._lock:
            self._met.append((now, load.others))

    def expecting(self, load: Load, now: float) -> Load:
        """The same load with those that may still come."""
        with self._lock:
            met = [others for when, others in self._met if now - when <= REMEMBERED_S]
        return replace(load, others=max([load.others, *met]))

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
            self._runs[request] = _Run(since=now)

    @contextlib.contextmanager
    def paused(self, request: Claimant, clock: Callable[[], float]) -> Iterator[None]:
        """Inside, it lets others run."""
        with self._lock:
            run = self._runs[request]
            run.spent_s, run.since = run.spent(clock()), None
        try:
            yield
        finally:
            with self._lock:
                run.since = clock()

    def finish(self, request: Claimant) -> None:
        """It is done, whatever came of it."""
        with self._lock:
            self._claims.pop(request, None)
            self._runs.pop(request, None)

    def _left(self, now: float) -> tuple[Claim | None, list[Claim]]:
        """The one that runs, and what is left of all in the order of their turns."""
        running, found = None, []
        for request, claim in self._claims.items():
            if (run := self._runs.get(request)) is None:
                if request.cancel.reason is None:
                    found.append(claim)
                continue
            spent = min(run.spent(now), claim.late_s)
            left = replace(
                claim,
                latest_start=claim.latest_start + spent,
                expected_s=max(0.0, claim.expected_s - spent),
                late_s=claim.late_s - spent,
            )
            found.append(left)
            if run.since is not None:
                running = left
        return running, sorted(found, key=lambda claim: claim.due)


def _is_promised(claim: Claim) -> bool:
    return claim.latest_start < math.inf


def _in_a_call(running: Claim | None, due: float) -> Iterator[Claim]:
    """What is left of a call before somebody who is due then has the device."""
    if running is not None and running.due > due:
        late = min(running.late_s, running.call_s)
        yield replace(running, expected_s=min(running.expected_s, late), late_s=late)


@dataclass(frozen=True, slots=True)
class _Time:
    """What several take together: not all are late at once."""

    expected_s: float = 0.0
    squares: float = 0.0
    """Of what each takes more in 99 of 100 cases."""

    def plus(self, *claims: Claim) -> _Time:
        expected = math.fsum(claim.expected_s for claim in claims)
        squares = math.fsum((claim.late_s - claim.expected_s) ** 2 for claim in claims)
        return _Time(self.expected_s + expected, self.squares + squares)

    @property
    def late_s(self) -> float:
        """In 99 of 100 cases."""
        return self.expected_s + math.sqrt(self.squares)
