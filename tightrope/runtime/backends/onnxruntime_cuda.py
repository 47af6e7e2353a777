"""ONNX Runtime on a GPU: the standard graphs, in the bundle's own float type.

For holding answers of one machine against those of another, not for speed: keys and values of the
slots stay on the host and go to the GPU with every call. It runs where it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import onnxruntime

from tightrope.arrays import Array, Counts, Floats, Indices
from tightrope.bundle import Bundle
from tightrope.errors import BackendError
from tightrope.interface.calls import Call, Update, feeds, keep_ramp, update_of
from tightrope.interface.names import GraphName, Role
from tightrope.interface.tensors import EMBEDS, INDEX, KEEP_RAMP, TEXT_EMBEDS, VISUAL_EMBEDS
from tightrope.jetson.probe import num_cores
from tightrope.runtime.backends.backend import VisualTokens
from tightrope.runtime.backends.onnxruntime import check_version, onnxruntime_errors
from tightrope.runtime.cancel import Cancel, Cancelled
from tightrope.runtime.slots import Slots
from tightrope.runtime.storage import NumpyStorage

Device = Literal["cuda", "cpu"]
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

    def _session(self, role: Role, method: str = "") -> Any:
        """Session of a standard graph, opened at its first use."""
        graph = GraphName("standard", role, method)
        if graph not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = self.threads
            file, wanted = self._bundle.graph(graph), PROVIDERS[self.device]
            with onnxruntime_errors():
                session = onnxruntime.InferenceSession(str(file), options, providers=[wanted])
                session.disable_fallback()
            # It only logs that a provider's libraries are missing, and takes the CPU.
            if (found := session.get_providers())[:1] != [wanted]:
                raise BackendError(
                    f"ONNX Runtime runs {graph} on {', '.join(found)} where {wanted} was asked "
                    "for; install the CUDA and cuDNN that this onnxruntime-gpu names, or choose "
                    "--backend onnxruntime"
                )
            self._sessions[graph] = session
        return self._sessions[graph]

    def make_storage(self, rows: int, capacity: Counts) -> NumpyStorage:
        manifest = self._bundle.manifest
        return NumpyStorage(manifest.dims, rows, capacity, manifest.activations)

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
        return update_of(self._run_until(cancel, session, feeds(call, slots.occupied_views())))

    def decode(self, slots: Slots, call: Call) -> tuple[Floats, Update]:
        return update_of(self._run(self._session("decode"), feeds(call, slots.views())))

    def _run(
        self, session: Any, values: Mapping[str, Array], options: Any = None
    ) -> dict[str, Array]:
        """Outputs by name, floats as float32; of `values` the graph reads what it knows."""
        with onnxruntime_errors():
            binding = session.io_binding()
            held = []  # on a CPU an OrtValue is a view of the array
            for item in session.get_inputs():
                array = np.ascontiguousarray(values[item.name], _KINDS[item.type])
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device, 0)
                held.append((array, value))
                binding.bind_ortvalue_input(item.name, value)
            names = [output.name for output in session.get_outputs()]
            for name in names:
                binding.bind_output(name, "cpu")
            session.run_with_iobinding(binding, options)
            outputs = [value.numpy() for value in binding.get_outputs()]
        return {
            name: output.astype(np.float32) if output.dtype == np.float16 else output
            for name, output in zip(names, outputs, strict=True)
        }

    def _run_until(
        self, cancel: Cancel, session: Any, values: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The same, broken off where `cancel` is asked; raises Cancelled then."""
        options = onnxruntime.RunOptions()
        try:
            with cancel.interrupting(lambda: setattr(options, "terminate", True)):
                return self._run(session, values, options)
        except BackendError:
            if cancel.reason is not None:
                raise Cancelled from None
            raise


def create(bundle: Bundle, threads: int | None) -> StandardGraphs:
    """The backend of the table's row."""
    return StandardGraphs(bundle, threads)
