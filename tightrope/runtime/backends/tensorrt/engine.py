"""An engine that was read from its plan, and the contexts that run it on a stream."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tightrope.arrays import Array
from tightrope.errors import BackendError
from tightrope.interface.names import GraphName
from tightrope.interface.tensors import Rows
from tightrope.runtime.backends.tensorrt import versions
from tightrope.runtime.backends.tensorrt.driver import Memory
from tightrope.runtime.backends.tensorrt.log import last_words, make_logger

_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
}
"""Names of TensorRT's element types that our graphs have at their ends."""
_BUILD_AGAIN = "build it again: tightrope build BUNDLE"
PROMPTS, TOKENS = 0, 1
"""Optimization profiles: an engine has one, but for that of a decoder of any length, whose second
one is for one token a call."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of an engine."""

    name: str
    dtype: np.dtype[Any]
    axes: tuple[str | int, ...]
    is_input: bool
    least: Shape = ()
    """Of an input: the shortest shape that the engine was built for."""
    most: Shape = ()

    def check(self, graph: GraphName, shape: Sequence[int]) -> None:
        """Raises BackendError naming the axis whose length the engine was not built for."""
        if len(shape) != len(self.axes):
            raise BackendError(f"{graph}: {self.name} has the shape {list(shape)}, {_BUILD_AGAIN}")
        for axis, size, least, most in zip(self.axes, shape, self.least, self.most, strict=True):
            if not least <= size <= most:
                what = f"its axis {axis}" if isinstance(axis, str) else "an axis"
                raise BackendError(
                    f"{graph}: {self.name} has the shape {list(shape)}, but {what} is built for "
                    f"{least} to {most}; ask for less, or export with more --slots or a larger "
                    "--prefill-chunk and build again"
                )


class Engine:
    """One graph as TensorRT runs it on this GPU.

    Raises BackendError for a plan that this TensorRT refuses, or that is another graph's.
    """

    def __init__(self, trt: Any, graph: GraphName, plan: memoryview, rows: Rows, half: str) -> None:
        """rows: the inputs and outputs that it has to have. half: dtype of "activation"."""
        self.graph, self._trt, self.profile = graph, trt, PROMPTS
        self._logger = make_logger(trt)
        # The runtime is held because an engine may not outlive it.
        self._runtime, self._engine = versions.deserialised(trt, self._logger, plan)
        if self._engine is None:
            raise BackendError(
                f"{graph}: TensorRT {versions.version_of(trt)} does not read this engine "
                f"({last_words(self._logger)}); {_BUILD_AGAIN}"
            )
        self._rows = self._known(rows)
        self.tensors = self._tensors()
        for row in rows:
            wanted = half if row.dtype == "activation" else row.dtype
            if self.tensors[row.name].dtype != wanted:
                raise BackendError(
                    f"{graph}: {row.name} is {self.tensors[row.name].dtype} in its engine, the "
                    f"bundle says {wanted}; {_BUILD_AGAIN}"
                )
        self.scratch_bytes = versions.scratch_bytes(self._engine)

    def for_tokens(self) -> Engine:
        """The same engine in its profile for one token a call."""
        other = copy.copy(self)
        other.profile = TOKENS
        other.tensors = other._tensors()
        return other

    def _tensors(self) -> dict[str, Tensor]:
        return {row.name: self._tensor(row.name, row.axes) for row in self._rows}

    def _known(self, rows: Rows) -> Rows:
        """`rows`, once the engine has those and no other."""
        count = range(self._engine.num_io_tensors)
        found = {self._engine.get_tensor_name(place) for place in count}
        if odd := found ^ {row.name for row in rows}:
            raise BackendError(
                f"{self.graph}: its engine and the bundle differ in {', '.join(sorted(odd))}; "
                f"{_BUILD_AGAIN}"
            )
        return rows

    def _tensor(self, name: str, axes: tuple[str | int, ...]) -> Tensor:
        kind = str(self._engine.get_tensor_dtype(name).name)
        dtype = np.dtype(_TYPES.get(kind, "void"))
        if self._engine.get_tensor_mode(name) != self._trt.TensorIOMode.INPUT:
            return Tensor(name, dtype, axes, is_input=False)
        least, _, most = self._engine.get_tensor_profile_shape(name, self.profile)
        return Tensor(name, dtype, axes, True, tuple(least), tuple(most))

    def context(self, scratch: Memory, stream: int) -> Context:
        """A context that computes in `scratch`, which has `scratch_bytes` at least.

        stream: handle of the one that it will run on.
        """
        place = scratch.address, self.scratch_bytes
        context = versions.context_of(self._trt, self._engine, place, (self.profile, stream))
        if context is None:
            raise BackendError(
                f"{self.graph}: no context could be made ({last_words(self._logger)}); close "
                "other programs that use the GPU's memory"
            )
        return Context(self, context, scratch, self._logger)


class Context:
    """An engine's shapes and addresses for one kind of call."""

    def __init__(self, engine: Engine, context: Any, scratch: Memory, logger: Any) -> None:
        self.engine, self._context, self._logger = engine, context, logger
        self._scratch = scratch  # there as long as the context

    def shape(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Set the shape of every input; returns those of the outputs.

        Raises BackendError for a shape outside the profile.
        """
        for tensor in self.engine.tensors.values():
            if tensor.is_input:
                tensor.check(self.engine.graph, shapes[tensor.name])
                self._ask(self._context.set_input_shape(tensor.name, shapes[tensor.name]))
        self._ask(not self._context.infer_shapes())
        return {
            name: tuple(self._context.get_tensor_shape(name))
            for name, tensor in self.engine.tensors.items()
            if not tensor.is_input
        }

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Say where each input and output lies on the device."""
        for name in self.engine.tensors:
            self._ask(self._context.set_tensor_address(name, addresses[name]))

    def run(self, stream: int) -> None:
        """Queue it on the stream of that handle."""
        self._ask(self._context.execute_async_v3(stream))

    def _ask(self, went_well: bool) -> None:
        if not went_well:
            raise BackendError(
                f"{self.engine.graph}: TensorRT failed ({last_words(self._logger)}); {_BUILD_AGAIN}"
            )


def shapes_of(arrays: Mapping[str, Array]) -> dict[str, Shape]:
    """By name."""
    return {name: array.shape for name, array in arrays.items()}
