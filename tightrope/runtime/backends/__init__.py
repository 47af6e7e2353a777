"""Ways to run a bundle, one file each; the one that a user names is the one that runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tightrope.bundle import Bundle
from tightrope.checks import check_one_of, check_whole
from tightrope.errors import BackendError, DeviceUnavailable
from tightrope.runtime.backends.availability import BACKENDS, refuse_two_onnxruntimes

if TYPE_CHECKING:  # `tightrope doctor` asks which backends there are, without numpy
    from tightrope.runtime.backends.backend import Backend

AUTO = "auto"
"""Takes the first backend of the table that is ready."""
MOST_THREADS = 1024
"""More than any board has; ONNX Runtime would try to start as many as it is told."""


def create_backend(name: str, bundle: Bundle, threads: int | None = None) -> Backend:
    """The backend called `name`, holding `bundle`.

    Raises InputError for an unknown name, DeviceUnavailable for hardware that is not here, and
    BackendError for a package that is missing or doubled.
    """
    if threads is not None:
        check_whole("threads", threads, least=1, most=MOST_THREADS)
    refuse_two_onnxruntimes()
    check_one_of("backend", name, (AUTO, *BACKENDS))
    candidates = [name]
    if name == AUTO:
        candidates = [entry for entry, row in BACKENDS.items() if not row.only_by_name]
    statuses = {entry: BACKENDS[entry].status() for entry in candidates}
    ready = [entry for entry, status in statuses.items() if status.ready]
    # The last one of the table needs least; what it lacks is what to say.
    chosen = ready[0] if ready else list(statuses)[-1]
    row, status = BACKENDS[chosen], statuses[chosen]
    if not status.ready:
        kind = DeviceUnavailable if row.on_gpu else BackendError
        raise kind(f"backend {chosen} cannot run: {status.detail}; {status.remedy}")
    try:
        module = import_module(row.module)
    except ImportError as error:
        raise BackendError(
            f"{row.package} cannot be imported ({error}); pip install --force-reinstall "
            f"{row.package}"
        ) from error
    backend: Backend = module.create(bundle, threads)
    return backend


__all__ = ["AUTO", "Backend", "create_backend"]
