"""A stand-in for the module `tensorrt`: ONNX Runtime computes what an engine would.

It has the names of NVIDIA's bindings and no others, of which the backend's tests use those that run
engines. A "plan" is JSON: which graph it is of, and how long its axes may be. Work is queued on the
fake driver's stream and done at its turn; what an engine reads has to be there and written, what it
writes may touch nothing that it reads.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[Any]
__version__ = "10.3.0"
cuda: Any = None
"""The fake driver's library; whoever uses this module sets it."""
SCRATCH_BYTES = 1000
can_be_captured = True
"""Whether an engine may run while its stream is captured; some layers forbid it."""
BODY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
TYPES: dict[str, tuple[str, Any]] = {
    "tensor(float)": ("FLOAT", np.float32),
    "tensor(float16)": ("HALF", np.float16),
    "tensor(int8)": ("INT8", np.int8),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
}
failures: list[str] = []
"""What went wrong in work that was queued: a body can only say that something did."""


class DataType(Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64, INT4 = range(10)


class TensorIOMode(Enum):
    NONE, INPUT, OUTPUT = range(3)


class ExecutionContextAllocationStrategy(Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: memoryview) -> ICudaEngine | None:
        try:
            plan = json.loads(bytes(serialized_engine))
        except ValueError:
            self._logger.log(ILogger.ERROR, "Serialization assertion magicTag failed")
            return None
        if plan["version"] != __version__:
            self._logger.log(ILogger.ERROR, f"the engine plan is of version {plan['version']}")
            return None
        return ICudaEngine(plan, self._logger)


class _OwnSession:
    """A graph with own ops in ONNX Runtime's manner: each of them by its reference."""

    def __init__(self, file: str) -> None:
        import onnx

        sys.path.append(str(Path(__file__).parents[1] / "plugins" / "graphs"))
        from executor import Executor  # type: ignore[import-not-found]

        self._executor = Executor(Path(file))
        graph = onnx.load(file, load_external_data=False).graph
        self._inputs, self._outputs = map(_values, (graph.input, graph.output))

    def get_inputs(self) -> list[Any]:
        return self._inputs

    def get_outputs(self) -> list[Any]:
        return self._outputs

    def run(self, names: Sequence[str], feeds: dict[str, Array]) -> list[Array]:
        found = self._executor.run(feeds)
        return [found[name] for name in names]


def _values(values: Any) -> list[Any]:
    """Inputs or outputs of a graph, as ONNX Runtime tells them."""
    kinds = {1: "float", 3: "int8", 6: "int32", 7: "int64", 10: "float16"}
    return [
        SimpleNamespace(
            name=value.name,
            type=f"tensor({kinds[value.type.tensor_type.elem_type]})",
            shape=[axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


class ICudaEngine:
    device_memory_size_v2 = SCRATCH_BYTES

    def __init__(self, plan: dict[str, Any], logger: ILogger) -> None:
        own = Path(plan["graph"]).name.startswith("plugins.")
        self.session = _OwnSession(plan["graph"]) if own else self._standard(plan["graph"])
        self.ranges, self.logger = plan["ranges"], logger
        self.inputs = {each.name: each for each in self.session.get_inputs()}
        self.outputs = {each.name: each for each in self.session.get_outputs()}
        self.all = self.inputs | self.outputs
        self.num_io_tensors = len(self.all)

    @staticmethod
    def _standard(graph: str) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        providers = ["CPUExecutionProvider"]
        return onnxruntime.InferenceSession(graph, options, providers=providers)

    def get_tensor_name(self, index: int) -> str:
        names: list[str] = list(self.all)
        return names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[TYPES[self.all[name].type][0]]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert name in self.inputs
        begin = 3 * profile_index
        axes = [
            self.ranges[axis][begin : begin + 3] if axis in self.ranges else (axis,) * 3
            for axis in self.inputs[name].shape
        ]
        assert all(axes), "the engine has that profile"
        return [tuple(axis[place] for axis in axes) for place in range(3)]

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> IExecutionContext:
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self.engine, self._profile = engine, 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._known: dict[Any, dict[str, tuple[int, ...]]] = {}
        self._bodies: list[Any] = []  # captured work may run at any time

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        self._scratch = (memory, size)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile, self._shapes = profile_index, {}
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        least, _, most = self.engine.get_tensor_profile_shape(name, self._profile)
        if len(shape) != len(least) or not all(
            a <= size <= b for a, size, b in zip(least, shape, most, strict=True)
        ):
            return self._fails(f"{name}: {list(shape)} is not within {least} and {most}")
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.engine.inputs:
            return self._shapes.get(name, (-1,))
        return self._output_shapes()[name]

    def _output_shapes(self) -> dict[str, tuple[int, ...]]:
        """By the names of the axes; where they do not tell, by running it on zeros and places."""
        bound = {
            axis: size
            for name, shape in self._shapes.items()
            for axis, size in zip(self.engine.inputs[name].shape, shape, strict=True)
        }
        axes = {
            name: tuple(bound.get(axis, axis) for axis in each.shape)
            for name, each in self.engine.outputs.items()
        }
        key = tuple(self._shapes.items())
        if all(isinstance(axis, int) for shape in axes.values() for axis in shape):
            return axes
        if key not in self._known:
            zeros = {
                name: np.zeros(shape, TYPES[self.engine.inputs[name].type][1])
                for name, shape in self._shapes.items()
            }
            for array in zeros.values():
                if array.dtype == np.int64:  # no two candidates are in one place
                    array[...] = np.arange(array.shape[-1])
            found = self.engine.session.run(list(self.engine.outputs), zeros)
            shapes = (array.shape for array in found)
            self._known[key] = dict(zip(self.engine.outputs, shapes, strict=True))
        return self._known[key]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self.engine.all or not memory or memory % 256:
            return self._fails(f"{name}: no address is {memory}")
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if lacks := [name for name in self.engine.all if name not in self._addresses]:
            return self._fails(f"{lacks} have no address")
        if self.infer_shapes() or self._scratch[1] < SCRATCH_BYTES:
            return self._fails("shapes or scratch memory are missing")
        if not can_be_captured and cuda.fake_capturing():
            return self._fails("operation not permitted when stream is capturing")
        shapes = {**self._shapes, **self._output_shapes()}
        work = _Work(self.engine, dict(self._addresses), shapes, self._scratch[0])
        self._bodies.append(BODY(work.run))
        pointer = ctypes.c_void_p(stream_handle)
        return not cuda.fake_queue(pointer, self._bodies[-1], None)

    def _fails(self, message: str) -> bool:
        self.engine.logger.log(ILogger.ERROR, message)
        return False


class _Work:
    """One run of an engine with the shapes and addresses that its context had then."""

    def __init__(
        self,
        engine: ICudaEngine,
        addresses: dict[str, int],
        shapes: dict[str, tuple[int, ...]],
        scratch: int,
    ) -> None:
        self.engine, self.addresses, self.shapes, self.scratch = engine, addresses, shapes, scratch

    def run(self, _: Any) -> int:
        try:
            self._run()
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
            return 700
        return 0

    def _run(self) -> None:
        engine = self.engine
        for read, written in itertools.product(engine.inputs, engine.outputs):
            self._check_apart(read, written)
        inputs = {name: self._array(name, cuda.fake_reads).copy() for name in engine.inputs}
        found = engine.session.run(list(engine.outputs), inputs)
        assert cuda.fake_writes(ctypes.c_void_p(self.scratch), ctypes.c_size_t(SCRATCH_BYTES)) == 0
        ctypes.memset(self.scratch, 0xAB, SCRATCH_BYTES)
        for name, array in zip(engine.outputs, found, strict=True):
            assert array.shape == self.shapes[name], name
            self._array(name, cuda.fake_writes)[...] = array

    def _check_apart(self, read: str, written: str) -> None:
        (start, size), (other, length) = self._place(read), self._place(written)
        if start < other + length and other < start + size:
            raise AssertionError(f"{written} is written where {read} is read")

    def _place(self, name: str) -> tuple[int, int]:
        item = np.dtype(TYPES[self.engine.all[name].type][1]).itemsize
        return self.addresses[name], int(np.prod(self.shapes[name])) * item

    def _array(self, name: str, check: Any) -> Array:
        address, size = self._place(name)
        dtype = TYPES[self.engine.all[name].type][1]
        if not size:
            return np.zeros(self.shapes[name], dtype)
        if check(ctypes.c_void_p(address), ctypes.c_size_t(size)):
            raise AssertionError(f"{name}: {cuda.fake_said().decode()}")
        memory: Any = (ctypes.c_char * size).from_address(address)
        array: Array = np.frombuffer(memory, dtype).reshape(self.shapes[name])
        return array
