"""ONNX Runtime on a CPU: the host graphs, float32, one session for prefill and decode.

Decode goes through bindings to the slots' own memory, made anew only when capacity grows: a step
hands over no array and copies no cache.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import onnxruntime

from tightrope.arrays import Array, Counts, Floats, Indices
from tightrope.bundle import Bundle, Manifest
from tightrope.errors import BackendError
from tightrope.foreign import translated
from tightrope.interface.calls import (
    Call,
    Update,
    feeds,
    keep_ramp,
    slot_feeds,
    small_feeds,
    update_of,
)
from tightrope.interface.names import GraphName, Role, Variant
from tightrope.interface.tensors import (
    EMBEDS,
    INDEX,
    KEEP_RAMP,
    NEXT_CONV_STATE,
    NEXT_POSITION,
    NEXT_SCORE,
    TEXT_EMBEDS,
    VISUAL_EMBEDS,
    Rows,
    decoder_outputs,
)
from tightrope.jetson.probe import (
    INT8_EXTENSIONS,
    INT8_TILES,
    int8_products,
    num_cores,
    read_cpu_flags,
)
from tightrope.runtime.backends.backend import VisualTokens
from tightrope.runtime.backends.optimised import open_session
from tightrope.runtime.cancel import Cancel, Cancelled
from tightrope.runtime.slots import Slots
from tightrope.runtime.storage import NumpyStorage

_TYPES = {
    "activation": "tensor(float)",
    "float32": "tensor(float)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
}
"""What ONNX Runtime calls the element types of a host graph."""
_NONE: tuple[str, tuple[Any, ...]] = ("missing", ())


class OnnxRuntimeBackend:
    """Runs a bundle's host graphs."""

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, bundle: Bundle, threads: int | None = None, once: bool = False) -> None:
        """once: for a few calls in little memory: no session is kept, and no floats are packed."""
        check_version(bundle.manifest.minimum_onnxruntime)
        _check_processor(bundle.manifest)
        self._bundle = bundle
        self._once = once
        self._chosen_threads = threads
        self.threads = threads or num_cores()
        self.notes: list[str] = []
        self._in_int8 = INT8_TILES in read_cpu_flags()
        if GraphName("int8", "decoder").file in bundle.manifest.files and not self._in_int8:
            self.notes.append(f"prompts multiply in int4: this processor has no {INT8_TILES}")
        self._dims = bundle.manifest.dims
        self._sessions: dict[GraphName, Any] = {}
        self._decoder = self._session("decoder")
        self._steps: weakref.WeakKeyDictionary[Slots, _Step] = weakref.WeakKeyDictionary()

    def _session(self, role: Role, method: str = "") -> Any:
        """Session of a host graph, opened at its first use."""
        graph = GraphName(self._variant(role, method), role, method)
        if graph not in self._sessions:
            with self._bundle.damaged(graph.file):
                session = (
                    self._opened_once(graph)
                    if self._once
                    else open_session(self._bundle, graph, self._options, self.notes)
                )
                _check_rows(session, self._bundle.manifest.rows(graph))
            self._sessions[graph] = session
        return self._sessions[graph]

    def _variant(self, role: Role, method: str) -> Variant:
        """int8 where the bundle has the graph and the processor gains from it."""
        has = GraphName("int8", role, method).file in self._bundle.manifest.files
        return "int8" if has and self._in_int8 else "host"

    def _options(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # In the graph's own order a layer's attention weights are gone before the next layer.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        # Each session has threads of its own, which go on spinning for tens of milliseconds behind
        # a call: they would take the cores from the graph that comes next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._chosen_threads is not None:
            options.intra_op_num_threads = self._chosen_threads
        return options

    def _opened_once(self, graph: GraphName) -> Any:
        options = self._options()
        options.enable_cpu_mem_arena = False
        # Each branch of a decoder would pack a copy of floats; codes have no product but packed.
        if graph.role != "decoder" or self._bundle.manifest.precision != "int4":
            options.add_session_config_entry("session.disable_prepacking", "1")
        file = str(self._bundle.graph(graph))
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def make_storage(self, rows: int, capacity: Counts) -> NumpyStorage:
        return NumpyStorage(self._dims, rows, capacity, kv_cache=self._bundle.manifest.kv_cache)

    def vision(self, inputs: Mapping[str, Array], cancel: Cancel) -> VisualTokens:
        values = _run_until(cancel, self._session("vision"), inputs)
        return VisualTokens(values.pop(VISUAL_EMBEDS), values)

    def select(
        self, method: str, tokens: VisualTokens, text_embeds: Floats, keep: int
    ) -> tuple[Indices, Floats]:
        session = self._session("select", method)
        values: dict[str, Array] = {
            VISUAL_EMBEDS: tokens.embeds,
            TEXT_EMBEDS: text_embeds,
            KEEP_RAMP: keep_ramp(keep),
            **tokens.signals,
        }
        outputs = _run(session, {item.name: values[item.name] for item in session.get_inputs()})
        return outputs[INDEX], outputs[EMBEDS]

    def prefill(self, slots: Slots, call: Call, cancel: Cancel) -> tuple[Floats, Update]:
        session = self._decoder
        if call.selection is not None:
            session = self._session("decoder", call.selection.schedule)
        single = call.embeds.shape[1] == 1
        views = slots.views() if single else slots.occupied_views()
        return update_of(_run_until(cancel, session, feeds(call, views)))

    def decode(self, slots: Slots, call: Call) -> tuple[Floats, Update]:
        with onnxruntime_errors():
            step = self._steps.get(slots)
            if step is None or step.storage is not slots.storage:
                step = self._steps[slots] = _Step(self._decoder, slots, call)
            return step.run(slots, call)


def create(bundle: Bundle, threads: int | None) -> OnnxRuntimeBackend:
    """The backend of the table's row."""
    return OnnxRuntimeBackend(bundle, threads)


def _run(session: Any, inputs: Mapping[str, Array], options: Any = None) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    with onnxruntime_errors():
        return dict(zip(names, session.run(names, inputs, options), strict=True))


def _run_until(cancel: Cancel, session: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The same, broken off where `cancel` is asked; raises Cancelled then."""
    options = onnxruntime.RunOptions()
    try:
        with cancel.interrupting(lambda: setattr(options, "terminate", True)):
            return _run(session, inputs, options)
    except BackendError:
        if cancel.reason is not None:
            raise Cancelled from None
        raise


class _Step:
    """Bindings of one set of slots for S = 1: one reads side 0 of scores, one side 1.

    What a step is given is copied to arrays of its own, and what it answers appears in others, the
    scores and positions in the slots' spare side.
    """

    def __init__(self, session: Any, slots: Slots, call: Call) -> None:
        self.storage = slots.storage
        self._session = session
        self._inputs = {name: np.array(array) for name, array in small_feeds(call).items()}
        sizes: dict[str | int, int] = {"N": slots.rows, "S": 1}
        self._outputs: dict[str, Array] = {
            row.name: np.zeros(
                [sizes.get(axis, int(axis) if isinstance(axis, int) else 0) for axis in row.axes],
                "float32" if row.dtype == "activation" else row.dtype,
            )
            for row in decoder_outputs(slots.dims)
            if row.name not in _spare(slots, 0)
        }
        self._bindings = [self._bind(slots, side) for side in (0, 1)]
        self._updates = [update_of(self._outputs | _spare(slots, side)) for side in (0, 1)]

    def _bind(self, slots: Slots, side: int) -> Any:
        binding = self._session.io_binding()
        # On a CPU an OrtValue is a view of the array, not a copy.
        for name, array in (self._inputs | slot_feeds(slots.storage.views(side))).items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            binding.bind_ortvalue_input(name, value)
        for name, array in (self._outputs | _spare(slots, side)).items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            binding.bind_ortvalue_output(name, value)
        return binding

    def run(self, slots: Slots, call: Call) -> tuple[Floats, Update]:
        for name, array in small_feeds(call).items():
            self._inputs[name][:] = array
        self._session.run_with_iobinding(self._bindings[slots.side])
        return self._updates[slots.side]


def _spare(slots: Slots, side: int) -> dict[str, Array]:
    """Where a step that reads `side` writes scores, positions and states."""
    views = slots.storage.views(1 - side)
    written: dict[str, Array] = {NEXT_SCORE: views.score, NEXT_POSITION: views.position}
    if views.conv_state is not None:
        written[NEXT_CONV_STATE] = views.conv_state
    return written


def _check_rows(session: Any, rows: Rows) -> None:
    """Raises ValueError where a graph's inputs and outputs are not those of `rows`."""
    wanted = {row.name: (_TYPES[row.dtype], row.axes) for row in rows}
    values = (*session.get_inputs(), *session.get_outputs())
    found = {value.name: (value.type, tuple(value.shape)) for value in values}
    for name in {**wanted, **found}:
        (kind, axes), (has_kind, shape) = wanted.get(name, _NONE), found.get(name, _NONE)
        # Only fixed lengths: names of free axes are the graph's own.
        fits = kind == has_kind and len(axes) == len(shape)
        lengths = zip(axes, shape, strict=False)
        if not fits or any(isinstance(axis, int) and axis != size for axis, size in lengths):
            raise ValueError(
                f"{name} is {has_kind} {list(shape)}, bundle.json says {kind} {list(axes)}"
            )


def onnxruntime_errors() -> AbstractContextManager[None]:
    """Inside, whatever ONNX Runtime raises is a BackendError."""
    return translated(BackendError, "ONNX Runtime failed", "inspect --verify checks the bundle")


def _check_processor(manifest: Manifest) -> None:
    """Raises BackendError where a tower in int8 would be computed wrongly."""
    if manifest.tower_int8 is not None and int8_products(read_cpu_flags()) is None:
        raise BackendError(
            "this bundle's tower multiplies in int8, and this processor has none of "
            f"{', '.join(INT8_EXTENSIONS)}: sums would be wrong; export the checkpoint with "
            "--tower-precision fp32"
        )


def check_version(minimum: str) -> None:
    """Raises BackendError where ONNX Runtime is older than `minimum`, or not whole."""
    if not hasattr(onnxruntime, "__version__"):
        raise BackendError(
            "the onnxruntime package is incomplete; pip install --force-reinstall onnxruntime"
        )
    found = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if found < tuple(int(part) for part in minimum.split(".")):
        raise BackendError(
            f"this bundle needs ONNX Runtime {minimum}, installed is {onnxruntime.__version__}; "
            "pip install --upgrade onnxruntime"
        )
