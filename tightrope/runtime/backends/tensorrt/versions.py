"""What differs between TensorRT 10.3, 10.13, 10.16 and 11: asked for by name, never by number.

`trt` is the module itself. What exists in one version alone is found by its being there, so that a
version between two that were tried needs no entry.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tightrope.errors import DeviceUnavailable

HOW_TO_GET_IT = (
    "it comes with JetPack 6 and 7 as a system package: sudo apt install python3-libnvinfer, and "
    "create the environment with python3 -m venv --system-site-packages, by /usr/bin/python3 "
    "(3.10 on JetPack 6, 3.12 on JetPack 7)"
)


def load_tensorrt() -> Any:
    """The module `tensorrt`; raises DeviceUnavailable that says how to get it."""
    try:
        return import_module("tensorrt")
    except ImportError as error:
        raise DeviceUnavailable(
            f"TensorRT's Python package cannot be imported ({error}); {HOW_TO_GET_IT}"
        ) from error


def version_of(trt: Any) -> str:
    """Such as 10.3.0, as engines are known by."""
    return str(trt.__version__)


def network_flags(trt: Any) -> int:
    """Of `Builder.create_network`: the types of a network are those of its graph.

    From TensorRT 10 on every network has an explicit batch, and 11 has no flag for it.
    """
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def takes_initializers(parser: Any) -> bool:
    """Whether weights can be handed to the parser where they lie; 10.3 copies them from the file.

    Where it is so: `load_model_proto(model, path)`, `load_initializer(name, data, size)` for each,
    whose memory has to outlive the parser, then `parse_model_proto()`.
    """
    return hasattr(parser, "load_initializer")


def deserialised(trt: Any, logger: Any, plan: memoryview) -> tuple[Any, Any]:
    """The runtime, which has to outlive it, and the engine of `plan`; None where it is refused.

    A plan is code that runs: only bytes that were checked may come here.
    """
    runtime = trt.Runtime(logger)
    return runtime, runtime.deserialize_cuda_engine(plan)


def scratch_bytes(engine: Any) -> int:
    """Memory that one of the engine's contexts needs while it runs."""
    return int(engine.device_memory_size_v2)


def context_of(trt: Any, engine: Any, scratch: tuple[int, int], profile: tuple[int, int]) -> Any:
    """A context that computes in device memory, its address and bytes; None where it fails.

    Contexts that never run at once may share that memory: each of them brings none of its own.
    profile: which of the engine's optimization profiles, and the stream that it is chosen on.
    """
    (address, nbytes), (number, stream) = scratch, profile
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    context = engine.create_execution_context(strategy)
    if context is not None and nbytes:
        context.set_device_memory(address, nbytes)
    # A new context has the first one.
    if (
        context is not None
        and number
        and not context.set_optimization_profile_async(number, stream)
    ):
        return None
    return context
