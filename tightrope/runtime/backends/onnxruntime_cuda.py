"""ONNX Runtime on a GPU: the standard graphs, in the bundle's own float type.

Keys and values stay on the GPU: a call reads them where they lie, and what it leaves is written to
them there. It runs where it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import onnxruntime

from tightrope.arrays import Array, Counts, Floats, Indices
from tightrope.bundle import Bundle
from tightrope.errors import BackendError
from tightrope.interface.calls import (
    Call,
    Update,
    keep_ramp,
    slot_feeds,
    small_feeds,
    update_of,
)
from tightrope.interface.names import GraphName, Role
from tightrope.interface.tensors import (
    EMBEDS,
    INDEX,
    KEEP_RAMP,
    KEY,
    TEXT_EMBEDS,
    VALUE,
    VISUAL_EMBEDS,
)
from tightrope.jetson.probe import num_cores
from tightrope.plugins.commit import graph_file
from tightrope.runtime.backends.backend import VisualTokens
from tightrope.runtime.backends.bound_storage import BoundArray, BoundStorage, Place
from tightrope.runtime.backends.float16 import refuse_overflow
from tightrope.runtime.backends.int8_slots import refuse_int8
from tightrope.runtime.backends.onnxruntime import check_version, onnxruntime_errors
from tightrope.runtime.cancel import Cancel, Cancelled
from tightrope.runtime.slots import Slots

Device = Literal["cuda", "cpu"]
Bound = Mapping[str, tuple[Any, tuple[int, ...]]]
"""By input an OrtValue on the device, and the shape in which it is read."""
NOTHING: Bound = {}
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
_KINDS = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
"""What ONNX Runtime calls the element types of a standard graph."""


class StandardGraphs:
    """Runs a bundle's standard graphs."""

    name = "onnxruntime-cuda"

    def __init__(self, bundle: Bundle, threads: int | None = None, device: Device = "cuda") -> None:
        """device: cpu runs the same graphs on the host, which shows what their floats round away.

        Raises BackendError where ONNX Runtime takes another device than the one it was told.
        """
        check_version(bundle.manifest.minimum_onnxruntime)
        self._bundle = bundle
        self.device: str = device
        self.threads = threads or num_cores()
        self.notes: list[str] = []
        self._sessions: dict[GraphName, Any] = {}
        self._session("prefill")
        kind = np.dtype(bundle.manifest.activations)
        commit = self._opened(str(graph_file(kind.name)), "commit")
        self._place = Place(device=device, dtype=kind, commit=commit)

    def _session(self, role: Role, method: str = "") -> Any:
        """Session of a standard graph, opened at its first use."""
        graph = GraphName("standard", role, method)
        if graph not in self._sessions:
            self._sessions[graph] = self._opened(str(self._bundle.graph(graph)), str(graph))
        return self._sessions[graph]

    def _opened(self, file: str, what: str) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        wanted, disabled = PROVIDERS[self.device], []
        if self.device == "cpu":  # halves stay mapped, and are widened when they are multiplied
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.enable_cpu_mem_arena = False
            # What widens them stands last: by ONNX Runtime's own order all would be widened first.
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
            disabled = ["ConstantFolding", "FuseFp16InitializerToFp32NodeTransformer"]
        with onnxruntime_errors():
            session = onnxruntime.InferenceSession(
                file, options, providers=[wanted], disabled_optimizers=disabled
            )
            session.disable_fallback()
        # It only logs that a provider's libraries are missing, and takes the CPU.
        if (found := session.get_providers())[:1] != [wanted]:
            raise BackendError(
                f"ONNX Runtime runs {what} on {', '.join(found)} where {wanted} was asked "
                "for; install the CUDA and cuDNN that this onnxruntime-gpu names, or choose "
                "--backend onnxruntime"
            )
        return session

    def make_storage(self, rows: int, capacity: Counts) -> BoundStorage:
        return BoundStorage(self._place, self._bundle.manifest.dims, rows, capacity)

    def vision(self, inputs: Mapping[str, Array], cancel: Cancel) -> VisualTokens:
        values = self._run_until(cancel, self._session("vision"), inputs)
        return VisualTokens(values.pop(VISUAL_EMBEDS), values)

    def select(
        self, method: str, tokens: VisualTokens, text_embeds: Floats, keep: int
    ) -> tuple[Indices, Floats]:
        given: dict[str, Array] = {
            VISUAL_EMBEDS: tokens.embeds,
            TEXT_EMBEDS: text_embeds,
            KEEP_RAMP: keep_ramp(keep),
            **tokens.signals,
        }
        outputs = self._run(self._session("select", method), given)
        return outputs[INDEX], outputs[EMBEDS]

    def prefill(self, slots: Slots, call: Call, cancel: Cancel) -> tuple[Floats, Update]:
        schedule = "" if call.selection is None else call.selection.schedule
        if (slots.capacity < slots.occupied.max((1, 2)) + call.tokens_per_layer()).any():
            raise BackendError(
                f"the slots have no room for {call.embeds.shape[1]} more tokens, and the standard "
                "prefill gives none up; ask for less, or export with more --slots"
            )
        session = self._session("prefill", schedule)
        given = _given(slots, call, slots.occupied.max((1, 2)))
        return update_of(self._run_until(cancel, session, *given))

    def decode(self, slots: Slots, call: Call) -> tuple[Floats, Update]:
        return update_of(self._run(self._session("decode"), *_given(slots, call)))

    def _run(
        self, session: Any, values: Mapping[str, Array], there: Bound = NOTHING, options: Any = None
    ) -> dict[str, Any]:
        """Outputs by name, floats as float32; of `values` the graph reads what it knows.

        there: inputs that lie on the device. New keys and values stay there.
        """
        with onnxruntime_errors():
            binding = session.io_binding()
            held = []  # on a CPU an OrtValue is a view of the array
            for item in session.get_inputs():
                if item.name in there:
                    self._place.bind(binding.bind_input, item.name, *there[item.name])
                    continue
                array = np.ascontiguousarray(values[item.name], _KINDS[item.type])
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device, 0)
                held.append((array, value))
                binding.bind_ortvalue_input(item.name, value)
            names = [output.name for output in session.get_outputs()]
            for name in names:
                binding.bind_output(name, self.device if _stays(name) else "cpu")
            session.run_with_iobinding(binding, options)
            outputs = zip(names, binding.get_outputs(), strict=True)
            return {
                name: BoundArray(value) if _stays(name) else _wide(value.numpy())
                for name, value in outputs
            }

    def _run_until(
        self, cancel: Cancel, session: Any, values: Mapping[str, Array], there: Bound = NOTHING
    ) -> dict[str, Any]:
        """The same, broken off where `cancel` is asked; raises Cancelled then."""
        options = onnxruntime.RunOptions()
        try:
            with cancel.interrupting(lambda: setattr(options, "terminate", True)):
                return self._run(session, values, there, options)
        except BackendError:
            if cancel.reason is not None:
                raise Cancelled from None
            raise


def _given(
    slots: Slots, call: Call, occupied: Counts | None = None
) -> tuple[dict[str, Array], Bound]:
    """What a call brings, and what of the slots it reads where it lies.

    occupied: [L]; of layers that hold nothing, nothing is read. None: all that is allocated is.
    """
    assert isinstance(slots.storage, BoundStorage), "slots of this backend's making"
    ranks = slots.storage.ranks(slots.side)
    read = slots.capacity if occupied is None else occupied
    return small_feeds(call) | slot_feeds(ranks), slots.storage.bound(read)


def _stays(name: str) -> bool:
    return name.split(".")[0] in (KEY, VALUE)


def _wide(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def create(bundle: Bundle, threads: int | None) -> StandardGraphs:
    """The backend of the table's row; raises UnsupportedModel where float16 is too narrow,
    BackendError where slots are int8."""
    refuse_overflow(bundle.manifest)
    refuse_int8(
        bundle.manifest,
        "onnxruntime-cuda runs no others",
        "choose --backend tensorrt, or onnxruntime, which holds the same numbers as floats; or ",
    )
    return StandardGraphs(bundle, threads)
