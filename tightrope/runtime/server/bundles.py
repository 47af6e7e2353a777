"""The bundles of a server: opened at its start, loaded and tested before the first request.

Others may come in their place while requests go on. Both are in memory for a while where they fit
beside each other; where they do not, requests wait until the running ones are answered, the old
bundle is gone and the new one is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from tightrope.bundle import SELFTEST, Bundle
from tightrope.errors import BackendError, InputError, ProfileError
from tightrope.jetson.probe import read_meminfo
from tightrope.runtime.backends import create_backend
from tightrope.runtime.engine import engine_of
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.memory import PROCESS_BYTES, planned_bytes
from tightrope.runtime.planner import planner_of
from tightrope.runtime.selftest import compare, stored
from tightrope.runtime.server.manager import Manager, loading_s
from tightrope.runtime.server.noted import Noted
from tightrope.runtime.server.refusal import LOG, Refused
from tightrope.runtime.warm_up import warm_up


class Bundles:
    """Those of one server, by the names that requests call them."""

    def __init__(
        self,
        paths: Sequence[Path],
        manager: Manager,
        *,
        backend: str = "auto",
        threads: int | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """memory_bytes: that all of them may take; what the machine has left if None.

        Raises BundleError, and InputError for none or for two of one name.
        """
        self._paths, self._manager = paths, manager
        for path in paths:  # its files may have to be hashed
            manager.loading(path.name, loading_s(_folder_size(path)))
        self._backend, self._threads, self._memory_bytes = backend, threads, memory_bytes
        self.opened: Mapping[str, Bundle] = _opened(paths)
        self.loaded: dict[str, Loaded] = {}
        """Those that answer."""
        self.begun = False
        """Whether all of them have been ready once."""
        self._inside = 0
        self._empty, self._open = asyncio.Event(), asyncio.Event()
        self._empty.set()
        self._open.set()

    @property
    def complete(self) -> bool:
        """Whether every one of them answers."""
        return len(self.loaded) == len(self.opened)

    def load(self) -> None:
        """Make all of them ready; raises what loading one raises."""
        for name, bundle in self.opened.items():
            self._manager.loading(name, loading_s(_size(bundle)))
            self.loaded[name] = self._ready(name, bundle)
        self.begun = True

    def refuse_while_loading(self) -> None:
        """Raises Refused before all of them have answered for the first time."""
        if not self.begun:
            raise Refused(503, "the bundles are still being loaded", code="loading", retry_s=2.0)

    @contextlib.asynccontextmanager
    async def using(self) -> AsyncIterator[Mapping[str, Loaded]]:
        """Inside, none of them is taken away; waits before it where one is being exchanged."""
        while not self._open.is_set():
            await self._open.wait()
        if not self.complete:
            raise Refused(503, "the bundle could not be exchanged", code="loading", retry_s=5.0)
        self._inside += 1
        self._empty.clear()
        try:
            yield self.loaded
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def reload(self) -> list[str]:
        """Take what lies at the paths now, where that is something else; returns their names.

        Raises what opening or loading one raises: the old one then goes on answering, unless it
        had to go first, and `complete` says so.
        """
        fresh = await asyncio.to_thread(_opened, self._paths)
        changed = [name for name in fresh if fresh[name].digest != self.opened[name].digest]
        for name in changed:
            with self._manager.patient(loading_s(_size(fresh[name]))):
                await self._exchange(name, fresh[name])
        return changed

    async def _exchange(self, name: str, bundle: Bundle) -> None:
        if self._fits_beside(bundle):
            parts = await asyncio.to_thread(self._ready, name, bundle)
            self._put(name, bundle, parts)
            return
        LOG.info("%s does not fit into memory beside the one that answers: requests wait", name)
        self._open.clear()
        try:
            await self._empty.wait()
            self.loaded.pop(name).planners.clear()  # they hold each other
            gc.collect()
            self._put(name, bundle, await asyncio.to_thread(self._ready, name, bundle))
        finally:
            self._open.set()

    def _put(self, name: str, bundle: Bundle, parts: Loaded) -> None:
        if (old := self.loaded.get(name)) is not None:
            old.planners.clear()  # they hold each other, and memory is short
        self.opened = {**self.opened, name: bundle}
        self.loaded[name] = parts

    def _fits_beside(self, bundle: Bundle) -> bool:
        """Whether memory is planned to hold it and all that are loaded."""
        backend = next(iter(self.loaded.values())).backend.name
        needed = planned_bytes(bundle.manifest, backend)
        if self._memory_bytes is None:
            return needed <= read_meminfo().get("MemAvailable", 0)
        held = sum(planned_bytes(other.manifest, backend) for other in self.opened.values())
        return PROCESS_BYTES + held + needed <= self._memory_bytes

    def _ready(self, name: str, bundle: Bundle) -> Loaded:
        """The bundle, ready for requests: it answers as where it was exported, and is warm.

        Raises BackendError where it answers otherwise.
        """
        real = create_backend(self._backend, bundle, self._threads)
        engine = engine_of(real.device)
        if self._manager.watches:
            engine.watch(self._manager.beat)

        def took(seconds: float) -> None:
            self._manager.took(seconds)
            engine.note()

        parts = Loaded(bundle, Noted(real, took), time.perf_counter)
        if SELFTEST in bundle.manifest.files:
            comparison = compare(parts, stored(bundle))
            if not comparison.passed:
                raise BackendError(
                    f"{name} answers otherwise than where it was exported: logits differ by "
                    f"{comparison.worst:.1e}, where {comparison.tolerance:.1e} is usual; try "
                    "another --backend, or export it again"
                )
        try:
            warm_up(parts, planner_of(parts, None))
        except ProfileError as error:
            LOG.warning("%s keeps no deadlines: %s", name, error)
        return parts


def _opened(paths: Sequence[Path]) -> dict[str, Bundle]:
    bundles: dict[str, Bundle] = {}
    for path in paths:
        # Of a link, its own name and the folder that it leads to now: tomorrow it may be another.
        name = Path(os.path.abspath(path)).name.removesuffix(".bundle")
        if name in bundles:
            raise InputError(f"two bundles are called {name!r}; rename the folder of one")
        bundles[name] = Bundle.open(os.path.realpath(path))
    if not bundles:
        raise InputError("no bundle was given; name the folder that `tightrope export` wrote")
    return bundles


def _size(bundle: Bundle) -> int:
    return sum(entry.bytes for entry in bundle.manifest.files.values())


def _folder_size(path: Path) -> int:
    """Of what is there; 0 for what is no folder, which opening it will tell."""
    with contextlib.suppress(OSError):
        return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
    return 0
