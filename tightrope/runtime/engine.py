"""One thread per device that runs all requests there, one after another, the earliest due first.

A device computes one thing at a time, and its memory has one owner: whatever thread submits, the
work is done here, and pieces come back through a queue. A submitted request runs to its end whether
or not somebody listens; a ticket that is cancelled, closed or lost ends it within a token. What was
offered and not asked for is done while nothing else is.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import math
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from tightrope.errors import BackendError
from tightrope.runtime.answer import FinishReason
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.waiting import Waiting

IDLE_SECONDS = 2.0
"""After so long without work the thread ends; the next request starts another."""
SPARE_SECONDS = 0.25
"""After so long without work an idle moment begins: what was offered is done."""

Item = TypeVar("Item")
Produced = TypeVar("Produced", covariant=True)


class Work(Protocol[Produced]):
    """Something to run on a device."""

    @property
    def cancel(self) -> Cancel:
        """Asked when nobody wants the result any more."""

    def run(self) -> Iterator[Produced]:
        """What it yields goes to the ticket; what it raises is raised there."""


class _Job(Generic[Item]):
    """Work and the queue to whoever waits for it."""

    def __init__(self, work: Work[Item]) -> None:
        self.work = work
        self.results: queue.SimpleQueue[Item | BaseException | None] = queue.SimpleQueue()

    def run(self, said: Callable[[], None]) -> None:
        """said: called whenever something came of it."""
        try:
            for item in self.work.run():
                said()
                self.results.put(item)
            self.results.put(None)
        except BaseException as error:  # raised where it is waited for
            self.results.put(error)


class Ticket(Generic[Item]):
    """A request that was submitted: iterate it for what it yields, `cancel` it from anywhere."""

    def __init__(self, job: _Job[Item]) -> None:
        self._results, self._cancel = job.results, job.work.cancel
        self._done = False
        # A ticket that nobody holds any more has no listener; it must not hold itself.
        self._lost = weakref.finalize(self, job.work.cancel.ask)
        self._lost.atexit = False

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._done:
            raise StopIteration
        item = self._results.get()
        if item is None or isinstance(item, BaseException):
            self._done = True
            self._lost.detach()
            if item is None:
                raise StopIteration
            raise item
        return item

    def cancel(self, reason: FinishReason = "cancelled") -> None:
        """End it as soon as may be; what it yields at its end still comes."""
        self._cancel.ask(reason)

    def close(self) -> None:
        """End it; nothing more comes."""
        self._done = True
        self._lost()


class Engine:
    """The thread of one device."""

    def __init__(self, device: str) -> None:
        self._device, self._process = device, os.getpid()
        self._jobs: queue.PriorityQueue[tuple[float, int, _Job[object]]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self.waiting = Waiting()
        """What it has promised."""
        self._offered: deque[_Job[object]] = deque()
        self._giving_way: Cancel | None = None
        """Of offered work that runs."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running: _Job[object] | None = None
        self._said = 0.0
        self._beat: Callable[[], object] | None = None
        self._closed = False

    def submit(self, work: Work[Item], due: float = math.inf) -> Ticket[Item]:
        """Queue `work` before all that is due later, in seconds of its clock.

        Raises BackendError in a process that was forked from the engine's own.
        """
        if os.getpid() != self._process:
            raise BackendError(
                "this process was forked after its parent had loaded a model, and inherited "
                "neither its threads nor its device; load the model in the process that asks it"
            )
        job = _Job(work)
        ticket = Ticket(job)
        with self._lock:
            self._jobs.put((due, next(self._numbers), job))  # type: ignore[arg-type]  # any work
            if self._giving_way is not None:
                self._giving_way.ask()
            self._start()
        return ticket

    def offer(self, work: Work[Item]) -> None:
        """Have `work` done in an idle moment; a request that comes meanwhile cancels it.

        What it yields or raises is lost. Once the engine is closed nothing offered is done.
        """
        with self._lock:
            if not self._closed:
                self._offered.append(_Job(work))
                self._start()

    def watch(self, beat: Callable[[], object] | None) -> None:
        """Have `beat` called on its thread: between calls of what runs, and while nothing does.

        Meanwhile the thread does not end for want of work; a call that hangs is silence. None: no
        longer.
        """
        with self._lock:
            self._beat = beat
            if beat is not None:
                self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._serve, name=f"tightrope {self._device}", daemon=True
            )
            self._thread.start()

    def _next(self) -> _Job[object] | None:
        """What is to be done next; None where there was nothing for so long that it ends."""
        while True:
            with contextlib.suppress(queue.Empty):
                wait = SPARE_SECONDS if self._offered else IDLE_SECONDS
                return self._jobs.get(timeout=wait)[-1]
            with self._lock:
                if not self._jobs.empty():
                    return self._jobs.get()[-1]
                if self._offered:
                    job = self._offered.popleft()
                    self._giving_way = job.work.cancel
                    return job
                beat = self._beat
                if beat is None or self._closed:
                    self._thread = None
                    return None
            beat()

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            self._run(job)
            with self._lock:
                self._giving_way = None
            del job  # or the last answer would live until the next request

    def _run(self, job: _Job[object]) -> None:
        self.note()
        self._running = job
        if self._closed:
            job.work.cancel.ask()
        job.run(self.note)
        self._running = None

    def is_awaited(self, due: float) -> bool:
        """Whether somebody waits who is due before."""
        queued = self._jobs.queue
        return bool(queued) and queued[0][0] < due

    def give_way(self, due: float) -> None:
        """Run what is due before; asked on its thread by a request that is between two calls."""
        running = self._running
        while self.is_awaited(due):
            self._run(self._jobs.get_nowait()[-1])
            self._running = running
        if self._closed and running is not None:
            running.work.cancel.ask()

    def note(self) -> None:
        """Something came of what runs; called on its thread."""
        self._said = time.monotonic()
        beat = self._beat
        if beat is not None:
            beat()

    def silent_s(self) -> float:
        """For how long nothing has come of what runs; 0 where nothing does."""
        return 0.0 if self._running is None else time.monotonic() - self._said

    def close(self) -> None:
        """End what runs and what waits, so that the interpreter can end."""
        self._closed = True
        self._offered.clear()
        thread, running = self._thread, self._running
        if running is not None:
            running.work.cancel.ask()
        if thread is not None and os.getpid() == self._process:
            thread.join(timeout=5 * IDLE_SECONDS)


_ENGINES: dict[str, Engine] = {}
_ENGINES_LOCK = threading.Lock()


def engine_of(device: str) -> Engine:
    """The engine of `device` in this process; the models of all bundles there share it."""
    with _ENGINES_LOCK:
        engine = _ENGINES.get(device)
        if engine is None or engine._process != os.getpid():
            engine = _ENGINES[device] = Engine(device)
        return engine


_AT_END: list[Callable[[], object]] = []


def at_end(call: Callable[[], object]) -> None:
    """Have it called when the interpreter ends, once no request runs any more."""
    _AT_END.append(call)


@atexit.register
def _close_all() -> None:
    for engine in list(_ENGINES.values()):
        engine.close()
    for call in _AT_END:
        call()
