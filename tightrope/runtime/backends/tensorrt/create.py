"""The backend of the table's row: what was built on this board, opened on its GPU."""

from __future__ import annotations

from tightrope.bundle import Bundle
from tightrope.jetson.facts import facts_here
from tightrope.jetson.memory import plan_memory
from tightrope.plugins.kernels.homes import homes_of
from tightrope.plugins.tensorrt.layer import register
from tightrope.runtime.backends.tensorrt.backend import TensorRTBackend
from tightrope.runtime.backends.tensorrt.driver import open_device
from tightrope.runtime.backends.tensorrt.engines import ALL, open_engines, options_built
from tightrope.runtime.backends.tensorrt.kernels import Kernels
from tightrope.runtime.backends.tensorrt.versions import load_tensorrt, version_of
from tightrope.state import state_folder


def create(bundle: Bundle, threads: int | None) -> TensorRTBackend:
    """Its engines, and as much memory for slots as the plan does not give to anything else.

    threads: of the host, which computes nothing here. Raises BackendError for an engine that is
    missing or not to be trusted, DeviceUnavailable for a package or a GPU that is not here.
    """
    trt, device = load_tensorrt(), open_device()
    facts = facts_here(version_of(trt))
    state = state_folder(bundle.path)
    options = options_built(bundle, state, facts)
    engines = open_engines(bundle, state, facts, options)
    if options.plugins == ALL:
        register(trt, Kernels(device, homes_of(bundle.path, state)))
    plan = plan_memory(bundle.manifest, facts)
    if plan.available_bytes is None:
        free = device.free_bytes()
    else:
        free = plan.available_bytes - plan.running_bytes
    return TensorRTBackend(bundle.manifest, trt, device, engines, plan.slot_bytes + max(0, free))
