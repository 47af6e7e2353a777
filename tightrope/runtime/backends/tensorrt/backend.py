"""TensorRT on one GPU: a bundle's graphs as engines, all on one stream.

Only what sampling reads comes back to the host: logits, of a large vocabulary the likeliest, and
where new tokens go. Keys and values stay on the device, and so do scores and positions, which every
call writes to the slots' other side. Decode runs as a CUDA graph, captured once for each set of
slots.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from tightrope.arrays import Array, Counts, Floats, Indices
from tightrope.bundle import Manifest
from tightrope.errors import InputError, UnsupportedModel
from tightrope.interface.calls import Call, Update, keep_ramp
from tightrope.interface.names import GraphName, Role
from tightrope.interface.tensors import (
    EMBEDS,
    INDEX,
    KEEP_RAMP,
    LOGITS,
    SLOT_KEY,
    SLOT_KEY_SCALE,
    SLOT_VALUE,
    SLOT_VALUE_SCALE,
    TEXT_EMBEDS,
    VISUAL_EMBEDS,
    numbered,
)
from tightrope.runtime.backends.backend import VisualTokens
from tightrope.runtime.backends.tensorrt.arena import Arena, SlotMemory
from tightrope.runtime.backends.tensorrt.decoder import (
    Step,
    handed_over,
    new_rows,
    slots_of,
    stays,
    update_of,
)
from tightrope.runtime.backends.tensorrt.driver import Device, Memory
from tightrope.runtime.backends.tensorrt.engine import Context, Engine, shapes_of
from tightrope.runtime.backends.tensorrt.reduction import LARGE_VOCABULARY, Reduction
from tightrope.runtime.backends.tensorrt.run import Blocks, Run
from tightrope.runtime.backends.tensorrt.storage import DeviceStorage
from tightrope.runtime.cancel import Cancel, Cancelled
from tightrope.runtime.likeliest import Logits
from tightrope.runtime.slots import Slots


class Plans(Protocol):
    """The engines that were built for a bundle."""

    @property
    def alone(self) -> bool:
        """Whether prefill reads single tokens as well, and there is no decode."""

    def graph(self, role: Role, method: str = "") -> GraphName:
        """The graph whose engine does this: a decoder with plugins reads prompts and tokens."""

    def plan(self, graph: GraphName) -> memoryview:
        """The checked bytes of a graph's engine."""


class TensorRTBackend:
    """Runs a bundle's standard graphs, or those with own ops as plugins where engines are of them.

    Where prefill serves alone, it reads one token a call as well: what is too much is then given up
    between two calls, ranked by the host.
    """

    name = "tensorrt"
    threads = 1

    def __init__(
        self,
        manifest: Manifest,
        trt: Any,
        device: Device,
        plans: Plans,
        slot_bytes: int,
    ) -> None:
        """slot_bytes: of device memory for all slots.

        TIGHTROPE_CAPTURE=0 has every step queued by itself instead of as a CUDA graph.
        Raises UnsupportedModel for a bundle with layers of another kind than attention.
        """
        if manifest.dims.conv_layers:
            raise UnsupportedModel(
                "the tensorrt backend keeps no state of convolutions (layers of type conv), which "
                "this bundle has; run it on onnxruntime"
            )
        self.device = f"cuda: {device.name}"
        self.gpu = device
        self.notes: list[str] = []
        self._manifest, self._trt, self._plans = manifest, trt, plans
        self._capture = os.environ.get("TIGHTROPE_CAPTURE") != "0"
        self._engines: dict[GraphName, Engine] = {}
        self._runs: dict[GraphName, Run] = {}
        self._scratch: Memory | None = None
        self._prefill = self._engine("prefill")
        self._ranks = plans.graph("prefill").role == "decoder"
        """Whether prefill gives slots up inside a call."""
        if self._ranks:
            self._step = self._prefill.for_tokens()
        else:
            self._step = self._prefill if plans.alone else self._engine("decode")
        self._memory = SlotMemory(
            device,
            manifest.dims,
            np.dtype(manifest.activations),
            slot_bytes,
            manifest.kv_cache,
        )
        large = manifest.dims.vocab_size >= LARGE_VOCABULARY
        self._reduction = Reduction(device) if large else None

    def _engine(self, role: Role, method: str = "") -> Engine:
        """Engine of the graph that does this, read at its first use."""
        graph = self._plans.graph(role, method)
        if graph not in self._engines:
            rows, half = self._manifest.rows(graph), self._manifest.activations
            with self.gpu:
                self._engines[graph] = Engine(self._trt, graph, self._plans.plan(graph), rows, half)
        return self._engines[graph]

    def _context(self, engine: Engine) -> Context:
        """Engines never run at once, so that one piece of memory serves all of them."""
        if self._scratch is None or self._scratch.nbytes < engine.scratch_bytes:
            what = "what engines compute in"
            self._scratch = self.gpu.allocate(engine.scratch_bytes, what)
        return engine.context(self._scratch, self.gpu.stream)

    def _run(self, engine: Engine) -> Run:
        """For calls of any shape."""
        if engine.graph not in self._runs:
            blocks = Blocks(self.gpu, str(engine.graph))
            self._runs[engine.graph] = Run(self.gpu, self._context(engine), blocks)
        return self._runs[engine.graph]

    def make_storage(self, rows: int, capacity: Counts) -> DeviceStorage:
        return DeviceStorage(self._memory, rows, capacity)

    def vision(self, inputs: Mapping[str, Array], cancel: Cancel) -> VisualTokens:
        _stop_if_asked(cancel)
        values = self._computed(self._engine("vision"), inputs)
        return VisualTokens(values.pop(VISUAL_EMBEDS), values)

    def select(
        self, method: str, tokens: VisualTokens, text_embeds: Floats, keep: int
    ) -> tuple[Indices, Floats]:
        engine = self._engine("select", method)
        values: dict[str, Array] = {
            VISUAL_EMBEDS: tokens.embeds,
            TEXT_EMBEDS: text_embeds,
            KEEP_RAMP: keep_ramp(keep),
            **tokens.signals,
        }
        read = {name: values[name] for name, each in engine.tensors.items() if each.is_input}
        outputs = self._computed(engine, read)
        return outputs[INDEX], outputs[EMBEDS]

    def _computed(self, engine: Engine, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of a graph without slots, halves as float32."""
        with self.gpu:
            run = self._run(engine)
            run.prepare(shapes_of(inputs), {})
            return {
                name: array.astype(np.float32 if array.dtype == np.float16 else array.dtype)
                for name, array in run(inputs).items()
            }

    def prefill(self, slots: Slots, call: Call, cancel: Cancel) -> tuple[Floats, Update]:
        _stop_if_asked(cancel)
        if not self._ranks:
            _check_room(slots, call)
        schedule = "" if call.selection is None else call.selection.schedule
        engine = self._engine("prefill", schedule) if schedule else self._prefill
        arena, inputs = _arena(slots), handed_over(engine, call)
        with self.gpu:
            run = self._run(engine)
            run.prepare(
                shapes_of(inputs), slots_of(arena, slots.side, _empty(slots)), stays(engine)
            )
            outputs = {name: array.copy() for name, array in run(inputs).items()}
        rows = new_rows(run, len(arena.capacity), self._memory.dtype.itemsize)
        return outputs[LOGITS], update_of(run, outputs, arena, slots.side, rows)

    def decode(self, slots: Slots, call: Call) -> tuple[Logits, Update]:
        if self._step is self._prefill:
            self._make_way(slots, call)
        arena = _arena(slots)
        with self.gpu:
            step: Step | None = arena.kept.get(Step)
            if step is None:
                contexts = (self._context(self._step), self._context(self._step))
                step = arena.kept[Step] = Step(self.gpu, contexts, arena, call, self._reduction)
            return step(slots.side, call, self._capture)

    def _make_way(self, slots: Slots, call: Call) -> None:
        """Give up before a call that only appends what the last one left above the budget."""
        slots.trim(call.kv_budget, call.policy)
        slots.make_room(call.tokens_per_layer(), call.kv_budget.max(1) + 1)


def _arena(slots: Slots) -> Arena:
    assert isinstance(slots.storage, DeviceStorage), "slots of this backend's making"
    return slots.storage.arena


def _empty(slots: Slots) -> dict[str, bool]:
    """By the names of what slots may hold, whether a layer holds none: then nothing is read."""
    nothing = (slots.occupied == 0).all((1, 2))
    return {
        numbered(name, layer): bool(empty)
        for name in (SLOT_KEY, SLOT_VALUE, SLOT_KEY_SCALE, SLOT_VALUE_SCALE)
        for layer, empty in enumerate(nothing)
    }


def _check_room(slots: Slots, call: Call) -> None:
    """Raises InputError where slots would have to be given up inside a call."""
    needed = slots.occupied.max((1, 2)) + call.tokens_per_layer()
    if (needed > slots.capacity).any():
        most = int(slots.capacity.max())
        raise InputError(
            f"a prompt's part of {call.query_position.shape[1]} tokens needs {int(needed.max())} "
            f"slots, there are {most}: on TensorRT slots are given up between two parts, not "
            "inside one; lower kv_budget, or export with more --slots or a smaller "
            "--prefill-chunk"
        )


def _stop_if_asked(cancel: Cancel) -> None:
    """An engine runs to its end: a call that was asked to stop does not begin."""
    if cancel.reason is not None:
        raise Cancelled
