"""Which of a server's bundles are in memory: all, as far as there is room, else those in use.

Room is planned by what `tightrope inspect` tells of each, not found out by an allocation that
fails. Whoever asks for a bundle that is away waits until it is there. To make room those go that
were not asked for longest; requests that hold one are answered first, and nobody new gets it
meanwhile. One bundle is loaded at a time: two would race for the same memory.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from tightrope.bundle import Bundle
from tightrope.jetson.probe import read_meminfo
from tightrope.runtime.kept import SPARE_BYTES
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.memory import PROCESS_BYTES, planned_bytes
from tightrope.runtime.server.messages import MB
from tightrope.runtime.server.refusal import LOG, Refused


class Shelf:
    """The bundles of one server; any thread may ask."""

    def __init__(
        self,
        bundles: Mapping[str, Bundle],
        load: Callable[[str, Bundle], Loaded],
        backend: str,
        memory_bytes: int | None = None,
    ) -> None:
        """load: makes one ready. backend: that they run on, as far as that is known before.

        memory_bytes: that the process may take; what the machine has left now if None.
        """
        self.bundles, self._load, self._backend = dict(bundles), load, backend
        self.loaded: dict[str, Loaded] = {}
        """Those in memory."""
        self.filled = False
        """Whether all that have room are ready for the first time."""
        self._room = _room(memory_bytes)
        self._held: Counter[str] = Counter()
        self._asked: dict[str, int] = dict.fromkeys(bundles, 0)
        """The higher, the later it was asked for."""
        self._numbers = itertools.count(1)
        self._leaving: set[str] = set()
        self._loading: str | None = None
        self._changed = threading.Condition()

    def fill(self) -> None:
        """Load what there is room for, the first ones first; raises what loading raises."""
        for name, bundle in self.bundles.items():
            if self._fits(name, list(self.loaded)):
                self.loaded[name] = self._load(name, bundle)
            elif self.loaded:
                LOG.warning("%s has no room beside the others: it is loaded when asked for", name)
            else:
                needed, room = (size / MB for size in (self._needed(name), self._room))
                LOG.warning("%s may take %.0f MB, and there are %.0f MB", name, needed, room)
                self.loaded[name] = self._load(name, bundle)
        self.filled = True

    def exchange(self, fresh: Mapping[str, Bundle]) -> list[str]:
        """Take these bundles in place of those of the same names; the names of what changed.

        Both are in memory for a while where there is room; else requests wait until the running
        ones are answered, the old one is gone and the new one ready. Raises what loading raises:
        the old one then goes on answering, unless it had to go first.
        """
        changed = [name for name in fresh if fresh[name].digest != self.bundles[name].digest]
        for name in changed:
            self._exchange(name, fresh[name])
        return changed

    def _exchange(self, name: str, bundle: Bundle) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._loading is None)
            if name not in self.loaded:
                self.bundles[name] = bundle
                return
            self._loading = name
        try:
            if not self._room_beside(bundle):
                LOG.info("%s does not fit beside the one that answers: requests wait", name)
                with self._changed:
                    self._leaving.add(name)
                    self._put_away()
                gc.collect()
            parts = self._load(name, bundle)
            with self._changed:
                self.loaded[name], self.bundles[name] = parts, bundle
        finally:
            self._loaded_one()
        gc.collect()  # the old one, if nobody holds it: a planner and its bundle hold each other

    def _room_beside(self, bundle: Bundle) -> bool:
        held = sum(map(self._needed, [*self.loaded]))
        return held + planned_bytes(bundle.manifest, self._running()) <= self._room

    def refuse_while_loading(self) -> None:
        """Raises Refused before `fill` is done."""
        if not self.filled:
            raise Refused(503, "the bundles are still being loaded", code="loading", retry_s=2.0)

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[Loaded]:
        """Inside, the bundle stays in memory; before, it may have to be loaded.

        Raises what loading raises.
        """
        parts = self._take(name)
        try:
            yield parts
        finally:
            with self._changed:
                self._held[name] -= 1
                self._changed.notify_all()

    def _take(self, name: str) -> Loaded:
        with self._changed:
            while name not in self.loaded or name in self._leaving:
                if self._loading is None:
                    self._loading = name
                    break
                self._changed.wait()
            else:
                return self._hold(name)
        try:
            self._make_room(name)
            parts = self._load(name, self.bundles[name])
            with self._changed:
                self.loaded[name] = parts
                return self._hold(name)
        finally:
            self._loaded_one()

    def _loaded_one(self) -> None:
        with self._changed:
            self._loading = None
            self._leaving.clear()
            self._changed.notify_all()

    def _hold(self, name: str) -> Loaded:
        self._held[name] += 1
        self._asked[name] = next(self._numbers)
        return self.loaded[name]

    def _make_room(self, name: str) -> None:
        """Put others away until there is room, each once nobody holds it any more."""
        with self._changed:
            staying = sorted(self.loaded, key=self._asked.__getitem__)
            while staying and not self._fits(name, staying):
                self._leaving.add(staying.pop(0))
            for other in self._leaving:
                LOG.info("%s goes to make room for %s", other, name)
            self._put_away()
        gc.collect()  # a planner and what it plans for hold each other

    def _put_away(self) -> None:
        """Those that are leaving, once nobody holds any of them; inside the lock."""
        self._changed.wait_for(lambda: not any(self._held[other] for other in self._leaving))
        for other in self._leaving:
            del self.loaded[other]

    def _fits(self, name: str, others: list[str]) -> bool:
        return sum(map(self._needed, (name, *others))) <= self._room

    def _needed(self, name: str) -> int:
        return planned_bytes(self.bundles[name].manifest, self._running())

    def _running(self) -> str:
        """The backend, as far as it is known."""
        return next((parts.backend.name for parts in list(self.loaded.values())), self._backend)


def _room(memory_bytes: int | None) -> float:
    """Bytes for all bundles; without bound where neither caller nor machine say how many."""
    if memory_bytes is not None:
        return memory_bytes - PROCESS_BYTES
    available = read_meminfo().get("MemAvailable")
    return float("inf") if available is None else available - SPARE_BYTES
