"""Which backends would run here, told without loading any of them."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from tightrope.errors import BackendError

_TENSORRT = "tightrope.runtime.backends.tensorrt.create"
_ONNXRUNTIME_CUDA = "tightrope.runtime.backends.onnxruntime_cuda"


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """Whether one backend would run, why or why not, and what would change that."""

    ready: bool
    detail: str
    remedy: str | None = None


def refuse_two_onnxruntimes() -> None:
    """Raise BackendError where both ONNX Runtime packages are installed.

    They unpack into the same folder, so whichever came last has overwritten parts of the other.
    """
    if both := _two_onnxruntimes():
        raise BackendError(f"{both.detail}; run: {both.remedy}")


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def num_cuda_devices() -> int:
    """How many GPUs the CUDA driver offers; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _onnxruntime() -> BackendStatus:
    if both := _two_onnxruntimes():
        return both
    for distribution in ("onnxruntime", "onnxruntime-gpu"):
        if version := installed_version(distribution):
            return BackendStatus(True, f"{distribution} {version}, on the CPU")
    if find_spec("onnxruntime"):
        return BackendStatus(True, "onnxruntime of unknown version, on the CPU")
    return BackendStatus(False, "onnxruntime is not installed", "pip install onnxruntime")


def _onnxruntime_cuda() -> BackendStatus:
    if both := _two_onnxruntimes():
        return both
    version = installed_version("onnxruntime-gpu")
    if num_cuda_devices() == 0:
        return BackendStatus(
            False,
            "the CUDA driver offers no GPU",
            "on a Jetson check the JetPack installation; in a container pass the GPU through",
        )
    if version is None and platform.machine() == "aarch64":
        return BackendStatus(
            False,
            "onnxruntime-gpu is not installed; the package index has no wheel of it for aarch64",
            "take the backend tensorrt, or a wheel that was built for your JetPack",
        )
    if version is None:
        remove = "pip uninstall -y onnxruntime && " if installed_version("onnxruntime") else ""
        return BackendStatus(
            False, "onnxruntime-gpu is not installed", f"{remove}pip install onnxruntime-gpu"
        )
    return BackendStatus(True, f"onnxruntime-gpu {version}, on the GPU")


def _tensorrt() -> BackendStatus:
    if num_cuda_devices() == 0:
        return BackendStatus(False, "the CUDA driver offers no GPU", "run it on the Jetson itself")
    if find_spec("tensorrt") is None:
        return BackendStatus(
            False,
            "TensorRT's Python package is not visible",
            "sudo apt install python3-libnvinfer, and create the environment with "
            "python3 -m venv --system-site-packages",
        )
    for module, distribution in (("pycuda", "pycuda"), ("cuda", "cuda-bindings")):
        if find_spec(module) is None:
            return BackendStatus(
                False, f"{distribution} is not installed", f"pip install {distribution}"
            )
    return BackendStatus(True, f"tensorrt {installed_version('tensorrt') or 'of unknown version'}")


def _two_onnxruntimes() -> BackendStatus | None:
    cpu, gpu = installed_version("onnxruntime"), installed_version("onnxruntime-gpu")
    if cpu is None or gpu is None:
        return None
    return BackendStatus(
        False,
        f"onnxruntime {cpu} and onnxruntime-gpu {gpu} are both installed and overwrite each other",
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendEntry:
    """One row of the table."""

    module: str
    """Its `create(bundle, threads)` makes the backend."""
    package: str
    """What it runs on."""
    status: Callable[[], BackendStatus]
    on_gpu: bool = True
    only_by_name: bool = False
    """Whether `auto` passes it over."""


BACKENDS = {
    "tensorrt": BackendEntry(module=_TENSORRT, package="tensorrt", status=_tensorrt),
    "onnxruntime-cuda": BackendEntry(
        module=_ONNXRUNTIME_CUDA,
        package="onnxruntime-gpu",
        status=_onnxruntime_cuda,
        only_by_name=True,
    ),
    "onnxruntime": BackendEntry(
        module="tightrope.runtime.backends.onnxruntime",
        package="onnxruntime",
        status=_onnxruntime,
        on_gpu=False,
    ),
}
"""In the order in which `auto` takes them, but for those that are taken by name alone."""


def backend_status() -> dict[str, BackendStatus]:
    """The state of every backend, in the table's order."""
    return {name: entry.status() for name, entry in BACKENDS.items()}
