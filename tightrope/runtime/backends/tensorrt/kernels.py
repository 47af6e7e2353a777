"""The kernels of own ops on a device, each loaded when it is first launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tightrope.errors import BackendError
from tightrope.foreign import translated
from tightrope.plugins.kernels.homes import load_from
from tightrope.plugins.kernels.launch import Launch
from tightrope.plugins.own_nodes import read_own_nodes
from tightrope.plugins.tensorrt.calls import misfit
from tightrope.plugins.tensorrt.layer import register
from tightrope.runtime.backends.tensorrt.driver import Device, ForeignKernel


class Kernels:
    """Launches kernels by name on any stream of a device."""

    def __init__(self, device: Device, homes: Sequence[Path]) -> None:
        """homes: the folders that have them."""
        major, minor = device.compute_capability
        self._device, self._homes = device, homes
        self.sm = 10 * major + minor
        self._loaded: dict[str, tuple[Launch, ForeignKernel]] = {}

    def launch(self, kernel: str, values: Mapping[str, Any], stream: int) -> None:
        """Queue a kernel on the stream of that handle.

        values: by the names that its description gives arguments and grid. Raises BackendError for
        a kernel that is not there for this GPU, or asks for what there is not.
        """
        launch, loaded = self._found(kernel)
        try:
            grid, arguments = launch.blocks(values), launch.packed(values)
        except KeyError as error:
            raise misfit(kernel, str(error.args[0])) from error
        if all(grid):
            loaded.launch(grid, arguments, stream)

    def _found(self, name: str) -> tuple[Launch, ForeignKernel]:
        if name not in self._loaded:
            launch, image = load_from(self._homes, name, self.sm)
            with self._device:
                kernel = self._device.foreign_kernel(
                    image, launch.kernel, launch.formats, launch.threads, launch.shared_bytes
                )
            self._loaded[name] = launch, kernel
        return self._loaded[name]


def register_plugins(trt: Any, graph: Path, device: Device, homes: Sequence[Path]) -> None:
    """Have TensorRT find our ops, whose kernels are in `homes`, for a graph that has them.

    Raises BackendError for a graph of another op set, before anything of it is parsed.
    """
    with translated(BackendError, f"{graph} cannot be read", "inspect --verify checks the bundle"):
        model = graph.read_bytes()
    read_own_nodes(model, graph.name)
    register(trt, Kernels(device, homes))
