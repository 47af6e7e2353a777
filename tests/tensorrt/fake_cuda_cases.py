"""What NVIDIA's own `cuda.bindings` make of the fake driver, one case after another.

    python fake_cuda_cases.py LIBRARY

prints one line of JSON: the name of each case and what came of it. It is a process of its own
because whoever looks for a CUDA driver in it finds the fake one.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

fake = ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
from cuda.bindings import driver  # noqa: E402

fake.fake_said.restype = ctypes.c_char_p
fake.fake_reads.argtypes = (ctypes.c_uint64, ctypes.c_size_t)
POINTERS = ctypes.POINTER(ctypes.c_void_p)
BODY = ctypes.CFUNCTYPE(
    ctypes.c_int, POINTERS, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_uint)
)
SIZE = 64
MODULE = b"FAKE\nscale 8 4\n\0"
CAPTURE = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL


def done(result: Any) -> Any:
    """What a call gives; raises with the fake's words where it fails."""
    code, *values = result
    if code != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{int(code)}: {fake.fake_said().decode()}")
    return values[0] if values else None


def floats(address: Any) -> Any:
    """SIZE bytes of memory as numbers."""
    return np.ctypeslib.as_array((ctypes.c_float * (SIZE // 4)).from_address(int(address)))


def scale(arguments: Any, grid: Any, block: Any) -> int:
    """Multiplies SIZE bytes at its first argument by its second."""
    address = ctypes.c_uint64.from_address(arguments[0]).value
    if code := fake.fake_reads(address, SIZE):
        return int(code)
    floats(address)[:] *= ctypes.c_float.from_address(arguments[1]).value
    return 0


class Made:
    """A stream, memory on either side that holds ones, and the kernel."""

    def __init__(self) -> None:
        self.stream = done(driver.cuStreamCreate(0))
        self.device, self.pinned = (
            done(driver.cuMemAlloc(SIZE)),
            done(driver.cuMemHostAlloc(SIZE, 0)),
        )
        self.module = done(driver.cuModuleLoadData(MODULE))
        self.kernel = done(driver.cuModuleGetFunction(self.module, b"scale"))
        self.out = np.zeros(SIZE // 4, np.float32)
        floats(self.pinned)[:] = 1

    def upload(self) -> None:
        done(driver.cuMemcpyHtoDAsync(self.device, self.pinned, SIZE, self.stream))

    def download(self, size: int = SIZE) -> None:
        done(driver.cuMemcpyDtoHAsync(self.out.ctypes.data, self.device, size, self.stream))

    def launch(self, factor: float, threads: int = 16) -> None:
        given = ((int(self.device), factor), (ctypes.c_uint64, ctypes.c_float))
        done(driver.cuLaunchKernel(self.kernel, 1, 1, 1, threads, 1, 1, 0, self.stream, given, 0))

    def wait(self) -> float:
        done(driver.cuStreamSynchronize(self.stream))
        return float(self.out[0])


def results_come_when_they_are_waited_for(made: Made) -> Any:
    made.upload()
    made.launch(3.0)
    made.download()
    early = float(made.out[0])
    return [early, made.wait()]


def a_pinned_buffer_that_is_reused_too_early_is_read_late(made: Made) -> Any:
    made.upload()
    floats(made.pinned)[:] = 7
    made.download()
    return made.wait()


def a_captured_launch_is_replayed_with_the_arguments_it_had(made: Made) -> Any:
    made.upload()
    made.wait()
    done(driver.cuStreamBeginCapture(made.stream, CAPTURE))
    made.launch(3.0)
    graph = done(driver.cuStreamEndCapture(made.stream))
    ready = done(driver.cuGraphInstantiate(graph, 0))
    done(driver.cuGraphDestroy(graph))
    for _ in range(2):
        done(driver.cuGraphLaunch(ready, made.stream))
    made.download()
    return made.wait()


def memory_that_nobody_wrote(made: Made) -> Any:
    made.download()
    return made.wait()


def a_copy_past_the_end(made: Made) -> Any:
    made.download(SIZE + 1)
    return made.wait()


def a_kernel_on_memory_that_was_freed(made: Made) -> Any:
    done(driver.cuMemFree(made.device))
    made.launch(2.0)
    return made.wait()


def a_stream_that_failed(made: Made) -> Any:
    try:
        a_copy_past_the_end(made)
    except RuntimeError:
        made.upload()
    return made.wait()


def memory_that_is_freed_twice(made: Made) -> Any:
    for _ in range(2):
        done(driver.cuMemFree(made.device))


def an_allocation_while_capturing(made: Made) -> Any:
    done(driver.cuStreamBeginCapture(made.stream, CAPTURE))
    try:
        done(driver.cuMemAlloc(SIZE))
    finally:
        done(driver.cuStreamEndCapture(made.stream))


def waiting_while_capturing(made: Made) -> Any:
    done(driver.cuStreamBeginCapture(made.stream, CAPTURE))
    try:
        made.wait()
    finally:
        done(driver.cuStreamEndCapture(made.stream))


def more_memory_than_there_is(made: Made) -> Any:
    fake.fake_limit(ctypes.c_size_t(1 << 20))
    try:
        done(driver.cuMemAlloc(1 << 20))
    finally:
        fake.fake_limit(ctypes.c_size_t(1 << 40))


def a_block_of_too_many_threads(made: Made) -> Any:
    made.launch(1.0, threads=2048)


def a_kernel_of_a_module_that_was_unloaded(made: Made) -> Any:
    done(driver.cuModuleUnload(made.module))
    made.launch(1.0)


def an_image_that_is_none(made: Made) -> Any:
    done(driver.cuModuleLoadData(b"ELF\0"))


def a_stream_that_was_destroyed(made: Made) -> Any:
    done(driver.cuStreamDestroy(made.stream))
    made.upload()


def what_is_still_open_is_counted(made: Made) -> Any:
    before = fake.fake_open()
    done(driver.cuModuleUnload(made.module))
    done(driver.cuStreamDestroy(made.stream))
    return before - fake.fake_open()


CASES: tuple[Callable[[Made], Any], ...] = (
    results_come_when_they_are_waited_for,
    a_pinned_buffer_that_is_reused_too_early_is_read_late,
    a_captured_launch_is_replayed_with_the_arguments_it_had,
    memory_that_nobody_wrote,
    a_copy_past_the_end,
    a_kernel_on_memory_that_was_freed,
    a_stream_that_failed,
    memory_that_is_freed_twice,
    an_allocation_while_capturing,
    waiting_while_capturing,
    more_memory_than_there_is,
    a_block_of_too_many_threads,
    a_kernel_of_a_module_that_was_unloaded,
    an_image_that_is_none,
    a_stream_that_was_destroyed,
    what_is_still_open_is_counted,
)


def main() -> None:
    body = BODY(scale)
    fake.fake_kernel(b"scale", body)
    told: dict[str, Any] = {}
    try:
        done(driver.cuMemAlloc(SIZE))
    except RuntimeError as error:
        told["before_cuInit"] = str(error)
    done(driver.cuInit(0))
    context = done(driver.cuDevicePrimaryCtxRetain(done(driver.cuDeviceGet(0))))
    done(driver.cuCtxSetCurrent(context))
    for case in CASES:
        try:
            told[case.__name__] = case(Made())
        except RuntimeError as error:
            told[case.__name__] = str(error)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
