"""The one module that talks to CUDA: pycuda for all it can, cuda-bindings to capture and replay.

A `Device` is one GPU with its primary context, which TensorRT uses as well, and one stream, on
which everything runs in order. No thread keeps the context: whoever calls takes it for the call
(`with device:`), because pycuda ends the process where a thread ends with a context on its stack;
what goes wrong inside leaves as a BackendError.
What is dropped may be dropped on any thread and while the stream still reads it: it is freed later,
by the device's own thread, when the stream has nothing left to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import TracebackType
from typing import Any

import numpy as np

from tightrope.arrays import Array, Bytes
from tightrope.errors import BackendError, DeviceUnavailable
from tightrope.foreign import translated, words

ALIGNMENT = 256
"""Of what lies in device memory, as TensorRT asks for; allocations have it."""


def aligned(nbytes: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class Memory:
    """Device memory; freed some time after it was dropped."""

    def __init__(self, allocation: Any, nbytes: int, dropped: deque[Any]) -> None:
        self.address, self.nbytes = int(allocation), nbytes
        weakref.finalize(self, dropped.append, allocation).atexit = False


class _Module:
    """A cubin as the driver has it; pycuda unloads it when nobody holds it."""

    def __init__(self, module: Any) -> None:
        self.loaded = module

    def free(self) -> None:
        self.loaded = None


class Kernel:
    """A kernel of a module, which is unloaded as memory is freed."""

    def __init__(
        self, module: _Module, function: Any, threads: int, shared_bytes: int, dropped: deque[Any]
    ) -> None:
        self._function = function
        self._block, self._shared_bytes = (threads, 1, 1), shared_bytes
        weakref.finalize(self, dropped.append, module).atexit = False

    def launch(self, grid: Sequence[int], arguments: Sequence[int], stream: Any) -> None:
        """Queue it over `grid`; the arguments are those that it was loaded for."""
        self._function.prepared_async_call(
            tuple(grid), self._block, stream, *arguments, shared_size=self._shared_bytes
        )


class _ForeignModule:
    """A cubin loaded by cuda-bindings."""

    def __init__(self, bindings: Any, image: bytes) -> None:
        self.bindings = bindings
        self.handle = _done(bindings, bindings.cuModuleLoadData(image), "load a kernel")

    def free(self) -> None:
        _done(self.bindings, self.bindings.cuModuleUnload(self.handle), "unload a kernel")


class ForeignKernel:
    """A kernel that is launched on whichever stream is named, also where another library made it.

    pycuda knows its own streams alone; TensorRT times plugins on one of its.
    """

    def __init__(
        self, module: _ForeignModule, name: str, formats: str, threads: int, shared_bytes: int
    ) -> None:
        self._bindings = driver = module.bindings
        found = driver.cuModuleGetFunction(module.handle, name.encode())
        self._function = _done(driver, found, f"find kernel {name}")
        self._threads, self._shared_bytes = threads, shared_bytes
        self._kinds = tuple(_KINDS[letter] for letter in formats)
        if shared_bytes > _SHARED_WITHOUT_ASKING:
            most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            asked = driver.cuFuncSetAttribute(self._function, most, shared_bytes)
            _done(driver, asked, f"have {shared_bytes} bytes of shared memory for {name}")

    def launch(self, grid: Sequence[int], arguments: Sequence[Any], stream: int) -> None:
        """Queue it over `grid` on the stream of that handle; raises BackendError."""
        launched = self._bindings.cuLaunchKernel(
            self._function,
            *grid,
            *(self._threads, 1, 1),
            self._shared_bytes,
            stream,
            (tuple(arguments), self._kinds),
            0,
        )
        _done(self._bindings, launched, "launch a kernel")


class _Executable:
    """A graph as the driver knows it."""

    def __init__(self, bindings: Any, handle: Any) -> None:
        self._bindings, self._handle = bindings, handle

    def launch(self, stream: int) -> None:
        _done(self._bindings, self._bindings.cuGraphLaunch(self._handle, stream))

    def free(self) -> None:
        _done(self._bindings, self._bindings.cuGraphExecDestroy(self._handle))


class Graph:
    """Work that was captured once and is queued again in one call; freed as memory is.

    What it reads and writes has to live as long.
    """

    def __init__(self, executable: _Executable, dropped: deque[Any]) -> None:
        self.executable = executable
        weakref.finalize(self, dropped.append, executable).atexit = False


class Device:
    """One GPU; raises DeviceUnavailable where a package or the GPU is missing."""

    def __init__(self, ordinal: int = 0) -> None:
        self._cuda, self._bindings = _packages()
        with translated(DeviceUnavailable, "the CUDA driver offers no GPU", _NO_GPU):
            self._cuda.init()
            device = self._cuda.Device(ordinal)
            self.name: str = device.name()
            self.compute_capability: tuple[int, int] = tuple(device.compute_capability())
            self._context = device.retain_primary_context()
        weakref.finalize(self, _release, self._context, self._bindings, threading.get_ident())
        self._dropped: deque[Any] = deque()
        with self:
            self._stream = self._cuda.Stream()
        self.stream: int = self._stream.handle
        """Its handle, as TensorRT takes it."""

    def __enter__(self) -> Device:
        self._context.push()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cuda.Context.pop()
        if isinstance(error, self._cuda.Error):
            raise BackendError(f"the GPU failed: {words(error)}; {_AGAIN}") from error

    def free_bytes(self) -> int:
        """Device memory that nobody holds; on a Jetson the page cache counts as held."""
        with self:
            free, _ = self._cuda.mem_get_info()
        return int(free)

    # Memory.
    def allocate(self, nbytes: int, what: str) -> Memory:
        """New device memory; raises BackendError that says what it was for."""
        self.collect()
        with self._asking(f"{nbytes / 2**20:.1f} MB of device memory for {what}"):
            return Memory(self._cuda.mem_alloc(max(nbytes, 1)), nbytes, self._dropped)

    def pinned(self, nbytes: int, what: str) -> Bytes:
        """New memory of the host that a copy reads and writes while Python goes on.

        It is there as long as a view of it. Raises BackendError that says what it was for.
        """
        self.collect()
        with self._asking(f"{nbytes / 2**20:.1f} MB of pinned memory for {what}"):
            array: Bytes = self._cuda.pagelocked_empty(max(nbytes, 1), np.uint8)
        weakref.finalize(array, self._dropped.append, array.base).atexit = False
        return array

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Inside, pycuda's errors, of which one is a MemoryError, say what was asked for."""
        try:
            yield
        except self._cuda.Error as error:
            raise BackendError(f"no {what}: {words(error)}; {_FULL}") from error

    def collect(self) -> None:
        """Free what was dropped."""
        if self._dropped:
            self.wait()
            with contextlib.suppress(IndexError):
                while True:
                    self._dropped.popleft().free()

    # Work in the stream's order.
    def upload(self, address: int, array: Array) -> None:
        """Copy to the device; what is not pinned is copied before this returns."""
        if array.nbytes:
            self._cuda.memcpy_htod_async(address, np.ascontiguousarray(array), self._stream)

    def download(self, array: Array, address: int) -> None:
        """Copy into a contiguous array, which holds it after `wait`."""
        if array.nbytes:
            self._cuda.memcpy_dtoh_async(array, address, self._stream)

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """Copy on the device."""
        if nbytes:
            self._cuda.memcpy_dtod_async(to, source, nbytes, self._stream)

    def copy_rows(
        self, to: int, to_pitch: int, source: int, source_pitch: int, width: int, height: int
    ) -> None:
        """Copy `height` rows of `width` bytes whose starts lie a pitch apart, on the device."""
        if width and height:
            copy = self._cuda.Memcpy2D()
            copy.set_dst_device(to)
            copy.set_src_device(source)
            copy.dst_pitch, copy.src_pitch = to_pitch, source_pitch
            copy.width_in_bytes, copy.height = width, height
            copy(self._stream)

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """Set every byte."""
        if nbytes:
            self._cuda.memset_d8_async(address, byte, nbytes, self._stream)

    def launch(self, kernel: Kernel, grid: Sequence[int], arguments: Sequence[int]) -> None:
        """Queue a kernel."""
        kernel.launch(grid, arguments, self._stream)

    def replay(self, graph: Graph) -> None:
        """Queue what was captured."""
        graph.executable.launch(self.stream)

    def wait(self) -> None:
        """Until all that was queued is done; raises what went wrong in it."""
        self._stream.synchronize()

    # What is loaded and captured.
    def kernel(
        self, image: bytes, name: str, formats: str, threads: int, shared_bytes: int
    ) -> Kernel:
        """A kernel of a cubin. formats: of its arguments, a letter of `struct` each."""
        module = _Module(self._cuda.module_from_buffer(image))
        function = module.loaded.get_function(name)
        function.prepare(formats)
        return Kernel(module, function, threads, shared_bytes, self._dropped)

    def foreign_kernel(
        self, image: bytes, name: str, formats: str, threads: int, shared_bytes: int
    ) -> ForeignKernel:
        """The same for streams that others made."""
        module = _ForeignModule(self._bindings, image)
        kernel = ForeignKernel(module, name, formats, threads, shared_bytes)
        weakref.finalize(kernel, self._dropped.append, module).atexit = False
        return kernel

    @contextlib.contextmanager
    def capturing(self) -> Iterator[list[Graph]]:
        """Inside, what is queued is noted and does not run; the list then holds its graph."""
        driver, graphs = self._bindings, list[Graph]()
        # Other threads may allocate meanwhile.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _done(driver, driver.cuStreamBeginCapture(self.stream, mode))
        try:
            yield graphs
        except BaseException:
            driver.cuStreamEndCapture(self.stream)  # what it says is less than what went wrong
            raise
        graph = _done(driver, driver.cuStreamEndCapture(self.stream))
        handle = _done(driver, driver.cuGraphInstantiate(graph, 0))
        graphs.append(Graph(_Executable(driver, handle), self._dropped))
        _done(driver, driver.cuGraphDestroy(graph))


_SHARED_WITHOUT_ASKING = 48 << 10
"""Bytes of shared memory that a kernel may have without asking for them."""
_KINDS = {"P": ctypes.c_uint64, "i": ctypes.c_int32, "q": ctypes.c_int64, "f": ctypes.c_float}
"""Letters of `struct` as cuda-bindings takes them."""
_FULL = "close other programs, allow fewer kv slots, or ask fewer answers at once"


@functools.cache
def open_device(ordinal: int = 0) -> Device:
    """The GPU of that number, the same for every bundle: all of them share its one stream.

    So what one model dropped is freed when the next one asks for memory.
    """
    return Device(ordinal)


_AGAIN = "start the program again; `tightrope selftest` then tells whether engines answer rightly"
_NO_GPU = "run it on the Jetson itself; in a container pass the GPU through (--runtime nvidia)"
_HOW_TO_GET_THEM = (
    "on JetPack 6: pip install pycuda 'cuda-bindings==12.6.*'; on JetPack 7: pip install pycuda "
    "'cuda-bindings==13.*'; pycuda is built there, with CUDA's headers: export "
    "PATH=/usr/local/cuda/bin:$PATH CUDA_ROOT=/usr/local/cuda first"
)


def _release(context: Any, bindings: Any, thread: int) -> None:
    """Give a primary context back; pycuda does it wrongly where it has to by itself.

    Its destructor calls cuCtxDetach, which is for other contexts. Where the thread is the one that
    retained the context, detaching leaves it on that thread's stack.
    """
    context.detach()
    if threading.get_ident() == thread:
        bindings.cuCtxPopCurrent()


def _packages() -> tuple[Any, Any]:
    try:
        return import_module("pycuda.driver"), import_module("cuda.bindings.driver")
    except ImportError as error:
        raise DeviceUnavailable(
            f"what speaks to CUDA cannot be imported ({error}); {_HOW_TO_GET_THEM}"
        ) from error


def _done(driver: Any, result: tuple[Any, ...], what: str = "capture or replay a graph") -> Any:
    """What a call of cuda-bindings gives; raises BackendError where it failed."""
    code, *values = result
    if code != driver.CUresult.CUDA_SUCCESS:
        _, text = driver.cuGetErrorString(code)
        told = text.decode() if isinstance(text, bytes) else code.name
        raise BackendError(f"CUDA could not {what}: {told}")
    return values[0] if values else None
