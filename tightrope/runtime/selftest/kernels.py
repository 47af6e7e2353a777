"""One call of an op's kernels on a GPU, as its plugin would queue it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tightrope.arrays import Array
from tightrope.bundle import Bundle
from tightrope.interface.tensors import TensorSpec
from tightrope.plugins.cases import Case
from tightrope.plugins.description import Description, element_of, rows_of
from tightrope.plugins.int4_matmul.reference import pack
from tightrope.plugins.kernels.homes import homes_of, missing
from tightrope.plugins.tensorrt.calls import output_shapes, queue, workspace_bytes
from tightrope.runtime.backends.backend import Backend
from tightrope.runtime.backends.tensorrt.backend import TensorRTBackend
from tightrope.runtime.backends.tensorrt.driver import Device
from tightrope.runtime.backends.tensorrt.kernels import Kernels
from tightrope.state import state_folder

_HALF = "float16"


def kernels_of(backend: Backend, bundle: Bundle) -> DeviceKernels | None:
    """Kernels on the GPU that `backend` computes on; None where it computes on none of ours."""
    if not isinstance(backend, TensorRTBackend):
        return None
    return DeviceKernels(backend.gpu, homes_of(bundle.path, state_folder(bundle.path)))


class DeviceKernels:
    """Kernels of own ops on one GPU."""

    def __init__(self, device: Device, homes: Sequence[Path]) -> None:
        """homes: the folders that have them."""
        self._device, self._homes = device, homes
        self._kernels = Kernels(device, homes)

    def lacking(self, description: Description, cases: Sequence[Case]) -> str:
        """Why an op's kernels cannot run these cases here; empty if they can."""
        names: dict[str, None] = {}
        for case in cases:
            rows, arrays = _given(description, case)
            shapes = [array.shape for array in arrays]
            sizes = description.all_sizes(rows, shapes, case.attributes)
            names |= dict.fromkeys(description.kernels(rows, sizes))
        lacking = missing(self._homes, names, self._kernels.sm)
        return f"no kernel {', '.join(lacking)} for sm_{self._kernels.sm}" if lacking else ""

    def compute(self, description: Description, case: Case) -> list[Array]:
        """Outputs of one call in float16; raises BackendError."""
        rows, arrays = _given(description, case)
        shapes = [array.shape for array in arrays]
        attributes, device = case.attributes, self._device
        outputs = [
            np.empty(shape, _element(row))
            for row, shape in zip(
                description.schema.outputs,
                output_shapes(description, rows, attributes, shapes),
                strict=True,
            )
        ]
        nbytes = workspace_bytes(description, rows, attributes, shapes)
        with device:
            held = [device.allocate(array.nbytes, "a test") for array in (*arrays, *outputs)]
            workspace = device.allocate(nbytes, "a test")
            for array, memory in zip(arrays, held, strict=False):
                device.upload(memory.address, array)
            addresses = [memory.address for memory in held]
            places = addresses[: len(arrays)], addresses[len(arrays) :], workspace.address
            target = self._kernels, device.stream
            queue(description, rows, attributes, shapes, places, target)
            for array, address in zip(outputs, places[1], strict=True):
                device.download(array, address)
            device.wait()
        return outputs


def _given(description: Description, case: Case) -> tuple[tuple[TensorSpec, ...], list[Array]]:
    """The inputs that a case has, as a plugin is handed them."""
    rows, arrays = rows_of(description.schema, case.inputs), []
    for row, array in zip(rows, (x for x in case.inputs if x is not None), strict=True):
        if row.dtype == "int4":
            array = pack(array).view(np.int8).reshape(len(array), -1)
        arrays.append(np.ascontiguousarray(array, _element(row)))
    return rows, arrays


def _element(row: TensorSpec) -> str:
    return element_of(row, _HALF)
