"""What our kernels do on the fake driver: their references, on the memory they are given."""

from __future__ import annotations

import ctypes
import traceback
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from tightrope.plugins.commit import Int8Row, LayerRow
from tightrope.plugins.commit.reference import commit, commit_int8
from tightrope.plugins.kernels import cubin
from tightrope.plugins.kernels.launch import load_launch
from tightrope.plugins.likeliest import COUNT
from tightrope.plugins.likeliest.reference import likeliest

POINTERS = ctypes.POINTER(ctypes.c_void_p)
UNSIGNED = ctypes.POINTER(ctypes.c_uint)
BODY = ctypes.CFUNCTYPE(ctypes.c_int, POINTERS, UNSIGNED, UNSIGNED)
READER = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_held: list[Any] = []


class Memory:
    """Device memory as arrays, each checked before it is used."""

    def __init__(self, fake: Any) -> None:
        self._fake = fake

    def read(self, address: int, shape: Sequence[int], dtype: Any) -> Any:
        return self._array(address, shape, dtype, self._fake.fake_reads)

    def written(self, address: int, shape: Sequence[int], dtype: Any) -> Any:
        return self._array(address, shape, dtype, self._fake.fake_writes)

    def _array(self, address: int, shape: Sequence[int], dtype: Any, check: Any) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size and check(ctypes.c_void_p(address), ctypes.c_size_t(size)):
            raise AssertionError(self._fake.fake_said().decode())
        memory = (ctypes.c_char * size).from_address(address)
        return np.frombuffer(memory, dtype).reshape(shape)


def commit_body(memory: Memory, arguments: Any, grid: list[int], block: list[int]) -> None:
    """The scatter of `plugins/commit`, layer by layer of its table."""
    table = ctypes.c_uint64.from_address(arguments[0]).value
    lanes, words = (ctypes.c_int32.from_address(arguments[place]).value for place in (1, 2))
    rows = [LayerRow(*row) for row in memory.read(table, (grid[2], 7), np.int64).tolist()]
    assert grid[:2] == [max(row.length for row in rows), lanes] and block == [32, 1, 1]
    for row in rows:
        if not row.length:
            continue
        target = memory.read(row.target, (1, lanes, row.length), np.int32)
        assert target.max(initial=-1) < row.capacity
        for slots, new in ((row.slot_key, row.key), (row.slot_value, row.value)):
            to = memory.written(slots, (1, lanes, row.capacity, words), np.int32)
            commit(to, memory.read(new, (1, lanes, row.length, words), np.int32), target)


def commit_int8_body(memory: Memory, arguments: Any, grid: list[int], block: list[int]) -> None:
    """The same to slots in int8."""
    table = ctypes.c_uint64.from_address(arguments[0]).value
    lanes, width = (ctypes.c_int32.from_address(arguments[place]).value for place in (1, 2))
    rows = [Int8Row(*row) for row in memory.read(table, (grid[2], 9), np.int64).tolist()]
    assert grid[:2] == [max(row.length for row in rows), lanes] and block == [32, 1, 1]
    for row in rows:
        if not row.length:
            continue
        target = memory.read(row.target, (1, lanes, row.length), np.int32)
        for slots, scales, new in (
            (row.slot_key, row.slot_key_scale, row.key),
            (row.slot_value, row.slot_value_scale, row.value),
        ):
            to = memory.written(slots, (1, lanes, row.capacity, width), np.int8)
            by = memory.written(scales, (1, lanes, row.capacity, 1), np.float32)
            commit_int8(
                (to, by), memory.read(new, (1, lanes, row.length, width), np.float16), target
            )


def likeliest_body(memory: Memory, arguments: Any, grid: list[int], block: list[int]) -> None:
    """The reduction of `plugins/likeliest`, row by row."""
    places = [ctypes.c_uint64.from_address(arguments[place]).value for place in range(3)]
    vocabulary, blocks = (ctypes.c_int32.from_address(arguments[place]).value for place in (3, 4))
    assert grid[0] == blocks and block == [128, 1, 1]
    values, tokens = likeliest(memory.read(places[0], (grid[1], vocabulary), np.float32))
    shape = (grid[1], blocks, COUNT)
    memory.written(places[1], shape, np.float32)[...] = values
    memory.written(places[2], shape, np.int32)[...] = tokens


KERNELS = {"commit": commit_body, "commit_int8": commit_int8_body, "likeliest": likeliest_body}


def register(fake: Any) -> None:
    """Have the fake driver know our kernels, and what is in the cubins that it is given."""
    memory, images = Memory(fake), dict[bytes, bytes]()
    for name, compute in KERNELS.items():
        launch, image = load_launch(name, 87)
        sizes = cubin.argument_sizes(image, launch.kernel)
        images[image] = f"FAKE\n{launch.kernel} {' '.join(map(str, sizes))}\n".encode()
        _held.append(BODY(partial(_computed, compute, memory)))
        fake.fake_kernel(launch.kernel.encode(), _held[-1])

    def read(address: int) -> int:
        for image in sorted(images, key=len):  # nothing is read behind the end of a short one
            if ctypes.string_at(address, len(image)) == image:
                return ctypes.cast(ctypes.c_char_p(images[image]), ctypes.c_void_p).value or 0
        raise AssertionError("a cubin that the package does not ship")

    _held.extend([READER(read), images])
    fake.fake_reader(_held[-2])


def _computed(compute: Any, memory: Memory, arguments: Any, grid: Any, block: Any) -> int:
    try:
        compute(memory, arguments, list(grid[:3]), list(block[:3]))
    except Exception:
        traceback.print_exc()
        return 700
    return 0
