"""A backend that runs a bundle's graphs with plugins, each own op by its reference."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from tightrope.bundle import Bundle
from tightrope.interface.calls import feeds, keep_ramp, update_of
from tightrope.interface.names import GraphName, Role
from tightrope.interface.tensors import (
    EMBEDS,
    INDEX,
    INT8_SLOTS,
    KEEP_RAMP,
    SLOT_KEY,
    SLOT_KEY_SCALE,
    SLOT_VALUE,
    SLOT_VALUE_SCALE,
    TEXT_EMBEDS,
    VISUAL_EMBEDS,
)
from tightrope.plugins.commit.reference import to_int8
from tightrope.runtime.backends.backend import VisualTokens
from tightrope.runtime.backends.onnxruntime_cuda import StandardGraphs
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.storage import NumpyStorage


class PluginGraphs(StandardGraphs):
    """Where a graph has no own ops its standard one runs."""

    def __init__(self, bundle: Bundle, executor: ModuleType) -> None:
        super().__init__(bundle, 1, "cpu")
        self.bundle, self._make = bundle, executor.Executor
        self.executors: dict[GraphName, Any] = {}

    def make_storage(  # type: ignore[override]  # what the executor reads are arrays
        self, rows: int, capacity: Any
    ) -> NumpyStorage:
        manifest = self.bundle.manifest
        return NumpyStorage(manifest.dims, rows, capacity, kv_cache=manifest.kv_cache)

    def _executor(self, role: Role, method: str = "") -> Any:
        name = GraphName("plugins", role, method)
        if name not in self.executors:
            self.executors[name] = self._make(self._bundle.graph(name))
        return self.executors[name]

    def _called(self, executor: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        half = np.float16
        if self.bundle.manifest.kv_cache == INT8_SLOTS:
            values = _in_int8(values)
        small = {
            name: value.astype(half)
            if value.dtype == np.float32 and name in executor.halves
            else value
            for name, value in values.items()
        }
        return {
            name: value.astype(np.float32) if value.dtype == half else value
            for name, value in executor.run(small).items()
        }

    def prefill(self, slots: Any, call: Any, cancel: Cancel) -> Any:
        schedule = "" if call.selection is None else call.selection.schedule
        executor = self._executor("decoder", schedule)
        return update_of(self._called(executor, feeds(call, slots.occupied_views())))

    def decode(self, slots: Any, call: Any) -> Any:
        return update_of(self._called(self._executor("decoder"), feeds(call, slots.views())))

    def select(self, method: str, tokens: Any, text_embeds: Any, keep: int) -> Any:
        if str(GraphName("plugins", "select", method)) not in self.bundle.manifest.plugins:
            return super().select(method, tokens, text_embeds, keep)
        given = {
            VISUAL_EMBEDS: tokens.embeds,
            TEXT_EMBEDS: text_embeds,
            KEEP_RAMP: keep_ramp(keep),
            **tokens.signals,
        }
        outputs = self._called(self._executor("select", method), given)
        return outputs[INDEX], outputs[EMBEDS]

    def vision(self, inputs: Mapping[str, Any], cancel: Cancel) -> VisualTokens:
        if str(name := GraphName("plugins", "vision")) not in self._bundle.manifest.plugins:
            return super().vision(inputs, cancel)
        values = self._called(self._executor(name.role), inputs)
        return VisualTokens(values.pop(VISUAL_EMBEDS), values)


def _in_int8(values: Mapping[str, Any]) -> dict[str, Any]:
    """The slots among `values` as the graph reads them: they hold what int8 keeps already."""
    scales = {SLOT_KEY: SLOT_KEY_SCALE, SLOT_VALUE: SLOT_VALUE_SCALE}
    held = dict(values)
    for name, value in values.items():
        kind, dot, layer = name.partition(".")
        if kind in scales:
            held[name], held[f"{scales[kind]}{dot}{layer}"] = to_int8(value)
    return held
