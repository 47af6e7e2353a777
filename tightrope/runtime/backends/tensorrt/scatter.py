"""The commit kernels on a device: rows that lie one behind the other go where a target says."""

from __future__ import annotations

from tightrope.errors import BackendError
from tightrope.plugins.kernels.launch import load_launch
from tightrope.runtime.backends.tensorrt.driver import Device

_WORD = 4


class Scatter:
    """A kernel that is loaded, for rows of one width."""

    def __init__(self, device: Device, kernel: str, size: dict[str, int]) -> None:
        """kernel: its name. size: of a row, by the name that the kernel has for it."""
        major, minor = device.compute_capability
        self._launch, image = load_launch(kernel, 10 * major + minor)
        self._device, self._size = device, size
        launch = self._launch
        with device:
            self._kernel = device.kernel(
                image, launch.kernel, launch.formats, launch.threads, launch.shared_bytes
            )

    def __call__(self, table: int, layers: int, lanes: int, length: int) -> None:
        """Queue it.

        table: address of int64 [layers,..], rows of `plugins.commit`. lanes: rows times heads.
        length: the longest of the table's.
        """
        if length:
            sizes = {"length": length, "lanes": lanes, "layers": layers}
            values = {"table": table, "lanes": lanes, **self._size}
            blocks, arguments = self._launch.blocks(sizes), self._launch.packed(values)
            self._device.launch(self._kernel, blocks, arguments)


def moving(device: Device, row_bytes: int) -> Scatter:
    """Rows as they are; raises BackendError where they are no whole words."""
    if row_bytes % _WORD:
        raise BackendError(
            f"keys of {row_bytes} bytes are not moved on the GPU, only multiples of {_WORD}; "
            "export with another precision"
        )
    return Scatter(device, "commit", {"words": row_bytes // _WORD})


def rounding(device: Device, width: int) -> Scatter:
    """Rows of `width` float16 to slots in int8."""
    return Scatter(device, "commit_int8", {"width": width})
