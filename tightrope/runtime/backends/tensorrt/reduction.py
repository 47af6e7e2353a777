"""The kernel `likeliest` on a device: of a step's logits a few come to the host, the rest stay."""

from __future__ import annotations

import numpy as np

from tightrope.plugins.kernels.launch import load_launch
from tightrope.plugins.likeliest import COUNT, blocks_of
from tightrope.runtime.backends.tensorrt.driver import Device
from tightrope.runtime.backends.tensorrt.staging import Staging
from tightrope.runtime.backends.tensorrt.storage import DeviceArray
from tightrope.runtime.likeliest import Likeliest, gathered

LARGE_VOCABULARY = 1 << 15
"""Tokens from which on it is worth a launch."""
_VALUES, _TOKENS = "values", "tokens"


class Reduction:
    """Loaded once for a device."""

    def __init__(self, device: Device) -> None:
        major, minor = device.compute_capability
        self._launch, image = load_launch("likeliest", 10 * major + minor)
        self.device, launch = device, self._launch
        with device:
            self._kernel = device.kernel(
                image, launch.kernel, launch.formats, launch.threads, launch.shared_bytes
            )

    def __call__(self, logits: DeviceArray, values: int, tokens: int) -> None:
        """Queue it; addresses of what `plugins.likeliest` gives."""
        rows, vocabulary = logits.shape
        blocks = blocks_of(vocabulary)
        given = {
            "logits": logits.address,
            "values": values,
            "tokens": tokens,
            "vocabulary": vocabulary,
            "blocks": blocks,
        }
        grid = self._launch.blocks({"blocks": blocks, "rows": rows})
        self.device.launch(self._kernel, grid, self._launch.packed(given))


class Reduced:
    """The likeliest tokens of logits that every step writes to one place."""

    def __init__(self, reduction: Reduction, logits: DeviceArray) -> None:
        """logits: float32 [N,vocab]."""
        self._reduction, self._logits = reduction, logits
        rows, vocabulary = logits.shape
        shape = (rows, blocks_of(vocabulary), COUNT)
        self._staging = Staging(reduction.device, "the likeliest tokens")
        kinds = {_VALUES: np.dtype(np.float32), _TOKENS: np.dtype(np.int32)}
        self._staging.lay_out({name: (shape, kind) for name, kind in kinds.items()})

    def queue(self) -> None:
        """Queue finding them, and the copy to the host."""
        addresses = self._staging.addresses
        self._reduction(self._logits, addresses[_VALUES], addresses[_TOKENS])
        self._staging.download()

    def likeliest(self) -> Likeliest:
        """Of the step that was waited for; valid until the next one."""
        arrays = self._staging.arrays
        return gathered(arrays[_VALUES], arrays[_TOKENS], self._logits.numpy)
