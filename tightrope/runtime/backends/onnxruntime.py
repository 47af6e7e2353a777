"""ONNX Runtime on a CPU: the host graphs, float32, one session for prefill and decode.

Decode goes through bindings to the slots' own memory, made anew only when capacity grows: a step
hands over no array and copies no cache. Scores and positions have two buffers that change places.
"""

from __future__ import annotations

import contextlib
import weakref
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from tightrope.bundle import Bundle
from tightrope.errors import BackendError, BundleError
from tightrope.interface import decoder_inputs, decoder_outputs
from tightrope.runtime.backends.backend import (
    Call,
    Cancel,
    Cancelled,
    Floats,
    Indices,
    Selection,
    VisualTokens,
    valid_per_layer,
)
from tightrope.runtime.slots import Slots, Update


class OnnxRuntimeBackend:
    """Runs a bundle's host graphs."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        _check_version(bundle.manifest.minimum_onnxruntime)
        self._bundle = bundle
        self._threads = threads
        self._dims = bundle.manifest.dims
        self._sessions: dict[str, Any] = {}
        self._decoder = self._session("decoder")
        _check_interface(self._decoder, bundle)
        self._steps: weakref.WeakKeyDictionary[Slots, _Step] = weakref.WeakKeyDictionary()
        self._tables = _position_tables(bundle)

    def _session(self, graph: str) -> Any:
        """Session of a host graph, opened at its first use."""
        if graph not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            if self._threads is not None:
                options.intra_op_num_threads = self._threads
            file = self._bundle.graph(f"host.{graph}")
            with _translated():
                self._sessions[graph] = onnxruntime.InferenceSession(
                    str(file), options, providers=["CPUExecutionProvider"]
                )
        return self._sessions[graph]

    def make_slots(self, rows: int) -> Slots:
        return Slots(self._dims, rows)

    def vision(self, pixel_values: Floats, resolution: int) -> VisualTokens:
        session = self._session("vision")
        feeds = {"pixel_values": pixel_values, "position_table": self._tables[resolution]}
        names = [output.name for output in session.get_outputs()]
        with _translated():
            values = dict(zip(names, session.run(names, feeds), strict=True))
        return VisualTokens(values.pop("visual_embeds"), values)

    def select(
        self, method: str, tokens: VisualTokens, text_embeds: Floats, keep: int
    ) -> tuple[Indices, Floats]:
        session = self._session(f"select-{method}")
        values = {
            "visual_embeds": tokens.embeds,
            "text_embeds": text_embeds,
            "keep_ramp": np.arange(keep),
            **tokens.signals,
        }
        feeds = {item.name: values[item.name] for item in session.get_inputs()}
        with _translated():
            index, embeds = session.run(["index", "embeds"], feeds)
        return index, embeds

    def prefill(
        self, slots: Slots, call: Call, cancel: Cancel, selection: Selection | None = None
    ) -> tuple[Floats, Update]:
        layers = range(self._dims.num_hidden_layers)
        feeds = _call_feeds(call)
        feeds["slot_score"], feeds["slot_position"] = slots.score, slots.position
        for i in layers:
            used = slots.used(i) if call.embeds.shape[1] > 1 else None
            feeds[f"slot_key.{i}"] = slots.key[i][:, :, :used]
            feeds[f"slot_value.{i}"] = slots.value[i][:, :, :used]
        session = self._decoder
        if selection is not None:
            session = self._session(f"decoder-{selection.schedule}")
            feeds["visual_index"] = selection.visual_index
            for stage, keep in enumerate(selection.keep):
                feeds[f"keep_ramp.{stage}"] = np.arange(keep)
        options = onnxruntime.RunOptions()
        cancel.on_ask(lambda: setattr(options, "terminate", True))
        names = [output.name for output in session.get_outputs()]
        try:
            with _translated():
                out = dict(zip(names, session.run(names, feeds, options), strict=True))
        except BackendError:
            if cancel.asked:
                raise Cancelled from None
            raise
        if selection is None:
            key, value, target = out["key"], out["value"], out["target"]
        else:
            key = [out[f"key.{i}"] for i in layers]
            value = [out[f"value.{i}"] for i in layers]
            target = [out[f"target.{i}"] for i in layers]
        update = Update(
            key=key,
            value=value,
            target=target,
            next_score=out["next_score"],
            next_position=out["next_position"],
            num_valid=valid_per_layer(call, len(layers), selection),
        )
        return out["logits"], update

    def decode(self, slots: Slots, call: Call) -> tuple[Floats, Update]:
        step = self._steps.get(slots)
        if step is None or step.version != slots.version:
            step = self._steps[slots] = _Step(self._decoder, slots)
        with _translated():
            return step.run(slots, call)


def _call_feeds(call: Call) -> dict[str, Any]:
    return {
        "inputs_embeds": call.embeds,
        "query_position": call.query_position,
        "rope_position": call.rope_position,
        "kv_budget": call.budget,
        "policy": call.policy,
    }


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Arrays that a step's inputs are copied into and its outputs appear in."""

    inputs: dict[str, Any]
    logits: Floats
    key: Floats
    value: Floats
    target: Any


class _Step:
    """Bindings of one set of slots for S = 1: one reads side 0 of scores, one side 1."""

    def __init__(self, session: Any, slots: Slots) -> None:
        self.version = slots.version
        self._session = session
        dims, rows = slots.dims, slots.rows
        stacked = (dims.num_hidden_layers, rows, dims.num_key_value_heads, 1)
        self._buffers = _Buffers(
            inputs={
                "inputs_embeds": np.zeros((rows, 1, dims.hidden_size), np.float32),
                "query_position": np.zeros((rows, 1), np.int32),
                "rope_position": np.zeros((rows, 1), np.int64),
                "kv_budget": np.zeros(dims.num_hidden_layers, np.int64),
                "policy": np.zeros(8, np.float32),
            },
            logits=np.zeros((rows, dims.vocab_size), np.float32),
            key=np.zeros((*stacked, dims.head_dim), np.float32),
            value=np.zeros((*stacked, dims.head_dim), np.float32),
            target=np.zeros(stacked, np.int32),
        )
        self._bindings = [self._bind(slots, side) for side in (0, 1)]

    def _bind(self, slots: Slots, side: int) -> Any:
        binding = self._session.io_binding()
        buffers = self._buffers
        inputs = dict(buffers.inputs)
        inputs["slot_score"], inputs["slot_position"] = slots.buffers(side)
        outputs = {
            "logits": buffers.logits,
            "key": buffers.key,
            "value": buffers.value,
            "target": buffers.target,
        }
        outputs["next_score"], outputs["next_position"] = slots.buffers(1 - side)
        for i in range(slots.dims.num_hidden_layers):
            inputs |= {f"slot_key.{i}": slots.key[i], f"slot_value.{i}": slots.value[i]}
        # On a CPU an OrtValue is a view of the array, not a copy.
        for name, array in inputs.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            binding.bind_ortvalue_input(name, value)
        for name, array in outputs.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            binding.bind_ortvalue_output(name, value)
        return binding

    def run(self, slots: Slots, call: Call) -> tuple[Floats, Update]:
        buffers = self._buffers
        inputs = buffers.inputs
        inputs["inputs_embeds"][:] = call.embeds
        inputs["query_position"][:] = call.query_position
        inputs["rope_position"][:] = call.rope_position
        inputs["kv_budget"][:] = call.budget
        inputs["policy"][:] = call.policy
        self._session.run_with_iobinding(self._bindings[slots.side])
        layers = slots.dims.num_hidden_layers
        next_score, next_position = slots.buffers(1 - slots.side)
        return buffers.logits, Update(
            key=buffers.key,
            value=buffers.value,
            target=buffers.target,
            next_score=next_score,
            next_position=next_position,
            num_valid=np.broadcast_to(
                (call.query_position[:, 0] >= 0).astype(np.int64), (layers, slots.rows)
            ),
            in_spare=True,
        )


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """ONNX Runtime's own errors become BackendError."""
    try:
        yield
    except Exception as error:  # its exception classes share no base but this
        if type(error).__module__.startswith("onnxruntime"):
            raise BackendError(f"ONNX Runtime failed: {error}") from error
        raise


def _check_interface(decoder: Any, bundle: Bundle) -> None:
    """Raises BundleError where the decoder's graph and the manifest's sizes disagree."""
    dims = bundle.manifest.dims
    for rows, values in (
        (decoder_inputs(dims), decoder.get_inputs()),
        (decoder_outputs(dims), decoder.get_outputs()),
    ):
        found = {value.name: value.shape for value in values}
        wanted = {row.name: row.axes for row in rows}
        for name in {**wanted, **found}:
            axes, shape = wanted.get(name, ()), found.get(name, [])
            # Only fixed lengths: names of free axes are the graph's own.
            if len(axes) != len(shape) or any(
                isinstance(axis, int) and axis != size
                for axis, size in zip(axes, shape, strict=True)
            ):
                raise BundleError(
                    f"{bundle.path}: the decoder has {name} {list(shape)}, bundle.json says "
                    f"{list(axes)}; export the checkpoint again"
                )


def _position_tables(bundle: Bundle) -> dict[int, Floats]:
    """The tower's position embeddings [1,P,Dv] by resolution; none for a text model."""
    vision = bundle.manifest.vision
    if vision is None:
        return {}
    file = bundle.file("positions.npz")
    try:
        with np.load(file, allow_pickle=False) as tables:
            found = {side: tables[str(side)].astype(np.float32) for side in vision.resolutions}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{file} is damaged ({error}); export the checkpoint again") from error
    for side, table in found.items():
        wanted = (1, vision.tokens(side) + 1, vision.hidden_size)
        if table.shape != wanted:
            raise BundleError(
                f"{file} has {list(table.shape)} for resolution {side}, bundle.json says "
                f"{list(wanted)}; export the checkpoint again"
            )
    return found


def _check_version(minimum: str) -> None:
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
