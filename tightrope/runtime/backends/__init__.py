"""Ways to run a bundle, one file each; the one that a user names is the one that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightrope.bundle import Bundle
from tightrope.checks import check_one_of, check_whole
from tightrope.errors import BackendError, DeviceUnavailable
from tightrope.runtime.backends.availability import backend_status, refuse_two_onnxruntimes

if TYPE_CHECKING:  # `tightrope doctor` asks which backends there are, without numpy
    from tightrope.runtime.backends.backend import Backend

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
    states = backend_status()
    check_one_of("backend", name, ("auto", *states))
    name = "onnxruntime" if name == "auto" else name
    state = states[name]
    if not state.ready:
        kind = BackendError if name == "onnxruntime" else DeviceUnavailable
        raise kind(f"backend {name} cannot run: {state.detail}; {state.remedy}")
    if name != "onnxruntime":
        raise BackendError(
            f"backend {name} is not part of this release; onnxruntime runs every bundle on the CPU"
        )
    try:
        from tightrope.runtime.backends.onnxruntime import OnnxRuntimeBackend
    except ImportError as error:
        raise BackendError(
            f"onnxruntime cannot be imported ({error}); pip install --force-reinstall onnxruntime"
        ) from error

    return OnnxRuntimeBackend(bundle, threads)
