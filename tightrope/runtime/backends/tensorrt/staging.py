"""Named arrays side by side in pinned memory, and the same on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tightrope.arrays import Array, Bytes
from tightrope.runtime.backends.tensorrt.driver import Device, Memory, aligned

Layout = Mapping[str, tuple[tuple[int, ...], "np.dtype[Any]"]]
"""Name -> shape and element type."""


class DeviceBlock:
    """Arrays on the device alone; its memory grows with what is laid out in it."""

    def __init__(self, device: Device, what: str) -> None:
        """what: it is for, should there be no memory."""
        self._device, self._what = device, what
        self.memory: Memory | None = None
        self.addresses: dict[str, int] = {}

    def lay_out(self, layout: Layout) -> None:
        """Give each array its place; what was there before is gone."""
        offsets, size = _offsets(layout)
        if self.memory is None or self.memory.nbytes < size:
            self.memory = None  # before there is more
            self.memory = self._device.allocate(size, self._what)
        base = self.memory.address
        self.addresses = {name: base + offset for name, offset in offsets.items()}


class Staging(DeviceBlock):
    """The same with a pinned copy in the host's memory."""

    def __init__(self, device: Device, what: str) -> None:
        super().__init__(device, what)
        self._pinned: Bytes | None = None
        self.arrays: dict[str, Array] = {}
        """By name, in pinned memory; a download's are there after the device's `wait`."""
        self._size = 0

    def lay_out(self, layout: Layout) -> None:
        super().lay_out(layout)
        offsets, self._size = _offsets(layout)
        if self._pinned is None or self._pinned.nbytes < self._size:
            self._pinned = None
            self._pinned = self._device.pinned(self._size, self._what)
        self.arrays = {
            name: np.ndarray(shape, dtype, self._pinned.data, offsets[name])
            for name, (shape, dtype) in layout.items()
        }

    def put(self, values: Mapping[str, Array]) -> None:
        """Fill every array from `values`, each in the array's own element type."""
        for name, array in self.arrays.items():
            array[...] = values[name]

    def upload(self) -> None:
        """Queue one copy of all to the device."""
        assert self._pinned is not None and self.memory is not None, "it was laid out"
        self._device.upload(self.memory.address, self._pinned[: self._size])

    def download(self) -> None:
        """Queue the copies from the device; what lies between arrays was never written."""
        for name, array in self.arrays.items():
            self._device.download(array, self.addresses[name])


def nbytes_of(layout: Layout) -> int:
    """What it takes in memory."""
    return _offsets(layout)[1]


def _offsets(layout: Layout) -> tuple[dict[str, int], int]:
    """Where each array begins, and how many bytes all take; an empty one has a place as well."""
    offsets, end = {}, 0
    for name, (shape, dtype) in layout.items():
        offsets[name] = end
        end += aligned(max(1, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize))
    return offsets, end
