"""The commit kernel on a device: rows that lie one behind the other go where a target says."""

from __future__ import annotations

from tightrope.errors import BackendError
from tightrope.plugins.kernels.launch import load_launch
from tightrope.runtime.backends.tensorrt.driver import Device

_WORD = 4


class Scatter:
    """Loaded for keys and values of one width."""

    def __init__(self, device: Device, row_bytes: int) -> None:
        """row_bytes: of one token's key in one head."""
        if row_bytes % _WORD:
            raise BackendError(
                f"keys of {row_bytes} bytes are not moved on the GPU, only multiples of {_WORD}; "
                "export with another precision"
            )
        major, minor = device.compute_capability
        self._launch, image = load_launch("commit", 10 * major + minor)
        self._device, self._words = device, row_bytes // _WORD
        launch = self._launch
        with device:
            self._kernel = device.kernel(
                image, launch.kernel, launch.formats, launch.threads, launch.shared_bytes
            )

    def __call__(self, table: int, layers: int, lanes: int, length: int) -> None:
        """Queue it.

        table: address of int64 [layers,7], rows of `plugins.commit.LayerRow`. lanes: rows times
        heads. length: the longest of the table's.
        """
        if length:
            sizes = {"length": length, "lanes": lanes, "layers": layers}
            values = {"table": table, "lanes": lanes, "words": self._words}
            blocks, arguments = self._launch.blocks(sizes), self._launch.packed(values)
            self._device.launch(self._kernel, blocks, arguments)
