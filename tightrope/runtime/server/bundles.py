"""The bundles of a server: opened at its start, loaded and tested before the first request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tightrope.bundle import SELFTEST, Bundle
from tightrope.errors import BackendError, InputError, ProfileError
from tightrope.runtime.backends import create_backend
from tightrope.runtime.heat import Heat
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.planner import planner_of
from tightrope.runtime.selftest import compare, stored
from tightrope.runtime.server.refusal import LOG
from tightrope.runtime.warm_up import warm_up


def opened(paths: Sequence[Path]) -> dict[str, Bundle]:
    """Bundles by the names that requests call them; raises BundleError and InputError."""
    bundles: dict[str, Bundle] = {}
    for path in paths:
        name = path.resolve().name.removesuffix(".bundle")
        if name in bundles:
            raise InputError(f"two bundles are called {name!r}; rename the folder of one")
        bundles[name] = Bundle.open(path)
    if not bundles:
        raise InputError("no bundle was given; name the folder that `tightrope export` wrote")
    return bundles


def loaded(
    name: str, bundle: Bundle, backend: str, threads: int | None, heat: Heat | None = None
) -> Loaded:
    """The bundle, ready for requests: it answers as where it was exported, and is warm.

    heat: what keeps the board below a ceiling.
    Raises BackendError where it answers otherwise, and ProfileError where a ceiling cannot be kept.
    """
    parts = Loaded(bundle, create_backend(backend, bundle, threads), time.perf_counter)
    parts.heat = heat
    if SELFTEST in bundle.manifest.files:
        comparison = compare(parts, stored(bundle))
        if not comparison.passed:
            raise BackendError(
                f"{name} answers otherwise than where it was exported: logits differ by "
                f"{comparison.worst:.1e}, where {comparison.tolerance:.1e} is usual; try another "
                "--backend, or export it again"
            )
    try:
        warm_up(parts, planner_of(parts, None))
    except ProfileError as error:
        if heat is not None:
            raise
        LOG.warning("%s keeps no deadlines: %s", name, error)
    return parts
