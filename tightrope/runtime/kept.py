"""What is kept of earlier requests within a bound in bytes: the least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from tightrope.jetson.probe import read_meminfo

IMAGE_BYTES = 64 << 20
"""Visual tokens of images that may be asked about again."""
PREFIX_BYTES = 128 << 20
"""Slots of prompts' beginnings that may come again."""
SPARE_BYTES = 256 << 20
"""Of the machine's memory: where a request would leave less, what is kept goes before it."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """Values by key; any thread may ask."""

    def __init__(self, most_bytes: int, bytes_of: Callable[[Value], int]) -> None:
        self.most_bytes, self._bytes_of = most_bytes, bytes_of
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0
        """Bytes that are held."""

    def __contains__(self, key: Key) -> bool:
        with self._lock:
            return key in self._values

    def __iter__(self) -> Iterator[Key]:
        """The keys, the least recently used first, as they are now."""
        with self._lock:
            return iter(list(self._values))

    def get(self, key: Key) -> Value | None:
        """The value, which counts as used now; None where it is not kept."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Key, value: Value) -> None:
        """Keep a value; one that is larger than the bound is not kept, and drives nothing out."""
        size = self._bytes_of(value)
        if size > self.most_bytes:
            return
        with self._lock:
            self._drop(key)
            self._values[key] = value
            self.nbytes += size
            while self.nbytes > self.most_bytes:
                self._drop(next(iter(self._values)))

    def drop_oldest(self) -> None:
        """Give up the least recently used, if there is any."""
        with self._lock:
            if self._values:
                self._drop(next(iter(self._values)))

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._values.clear()
            self.nbytes = 0

    def _drop(self, key: Key) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self.nbytes -= self._bytes_of(value)


def make_way(needed_bytes: int, *caches: Kept[Any, Any]) -> None:
    """Give up what the caches keep, the first one's first, until so much memory is available.

    Where the machine does not say how much there is, everything stays.
    """
    for cache in caches:
        while cache.nbytes:
            available = read_meminfo().get("MemAvailable")
            if available is None or available >= needed_bytes + SPARE_BYTES:
                return
            cache.drop_oldest()
