"""The bundles of a server: opened by name, made ready for requests and tested before the first."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from tightrope.bundle import SELFTEST, Bundle
from tightrope.errors import BackendError, InputError, ProfileError
from tightrope.runtime.backends import create_backend
from tightrope.runtime.chunks import Chunks
from tightrope.runtime.engine import engine_of
from tightrope.runtime.heat import Heat
from tightrope.runtime.live import keep_times
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.planners import planner_of
from tightrope.runtime.selftest.steps import compare, stored
from tightrope.runtime.server.manager import Manager, loading_s
from tightrope.runtime.server.noted import Noted
from tightrope.runtime.server.refusal import LOG
from tightrope.runtime.warm_up import warm_up


def opened(paths: Sequence[Path], manager: Manager) -> dict[str, Bundle]:
    """Bundles by the names that requests call them; raises BundleError and InputError."""
    bundles: dict[str, Bundle] = {}
    for path in paths:
        # Of a link, its own name and the folder that it leads to now: tomorrow it may be another.
        name = Path(os.path.abspath(path)).name.removesuffix(".bundle")
        if name in bundles:
            raise InputError(f"two bundles are called {name!r}; rename the folder of one")
        manager.loading(name, loading_s(_folder_size(path)))  # its files may have to be hashed
        bundles[name] = Bundle.open(os.path.realpath(path))
    if not bundles:
        raise InputError("no bundle was given; name the folder that `tightrope export` wrote")
    return bundles


class Loader:
    """Makes bundles ready: they answer as where they were exported, and are warm."""

    def __init__(
        self,
        manager: Manager,
        *,
        backend: str,
        threads: int | None,
        chunk_ms: float,
        heat: Heat | None = None,
    ) -> None:
        """chunk_ms: that a call may take which reads a prompt, where it was measured what they do.

        heat: what keeps the board below a ceiling.
        """
        self._manager, self._heat = manager, heat
        self._backend, self._threads, self._chunk_ms = backend, threads, chunk_ms

    def load(self, name: str, bundle: Bundle) -> Loaded:
        """Ready for requests, the manager being told how long that may take.

        Raises BackendError where it answers otherwise, and ProfileError where a ceiling over heat
        cannot be kept.
        """
        seconds = loading_s(sum(entry.bytes for entry in bundle.manifest.files.values()))
        self._manager.loading(name, seconds)
        with self._manager.patient(seconds):
            parts = self._opened(bundle)
            _check_answers(name, parts)
            keep_times(parts)  # of requests alone: what was just tested is none
            self._warm(name, parts)
        return parts

    def _opened(self, bundle: Bundle) -> Loaded:
        real = create_backend(self._backend, bundle, self._threads)
        engine, manager = engine_of(real.device), self._manager
        if manager.watches:
            engine.watch(manager.beat)

        def took(seconds: float) -> None:
            manager.took(seconds)
            engine.note()

        parts = Loaded(bundle, Noted(real, took), time.perf_counter)
        parts.heat = self._heat
        return parts

    def _warm(self, name: str, parts: Loaded) -> None:
        try:
            planner = planner_of(parts, None)
            most = parts.manifest.prefill_chunk
            parts.chunks = Chunks(most, planner.model.prefilling, self._chunk_ms)
            warm_up(parts, planner)
        except ProfileError as error:
            if self._heat is not None:
                raise
            # Its text: with the error itself a handler that keeps records would keep the bundle.
            LOG.warning("%s keeps no deadlines: %s", name, str(error))


def _check_answers(name: str, parts: Loaded) -> None:
    """Raises BackendError where the bundle answers otherwise than where it was exported."""
    if SELFTEST not in parts.manifest.files:
        return
    comparison = compare(parts, stored(parts.bundle))
    if not comparison.passed:
        raise BackendError(
            f"{name} answers otherwise than where it was exported: logits differ by "
            f"{comparison.worst:.1e}, where {comparison.tolerance:.1e} is usual; try another "
            "--backend, or export it again"
        )


def _folder_size(path: Path) -> int:
    """Of what is there; 0 for what is no folder, which opening it will tell."""
    with contextlib.suppress(OSError):
        return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
    return 0
