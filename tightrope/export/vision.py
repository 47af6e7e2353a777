"""The vision tower and its projector traced as graphs of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from tightrope.bundle import VisionInfo
from tightrope.export.families.vision import VisionAdapter
from tightrope.export.trace import trace
from tightrope.interface import Rows, TensorSpec, vision_inputs, vision_outputs


def vision_rows(info: VisionInfo, embed: int) -> tuple[Rows, Rows]:
    """Inputs and outputs of the vision graph."""
    outputs = vision_outputs(info.hidden_size, info.head_dim, embed, info.signals)
    return vision_inputs(info.hidden_size), outputs


def trace_vision(model: Any, adapter: VisionAdapter, info: VisionInfo, embed: int) -> ir.Model:
    """pixel_values and position_table to visual tokens and signals; call inside `fake_tensors`."""
    inputs, outputs = vision_rows(info, embed)

    def arguments(values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(("pixel_values", "position_table"), values, strict=True))

    tower = adapter.tower(model, info.signals)
    return trace(tower, inputs, outputs, arguments, info.patch_size)


def trace_projector(model: Any, adapter: VisionAdapter, width: int, embed: int) -> ir.Model:
    """Tower states [I,T,Dv] to embeddings [I,T,E]; call inside `fake_tensors`."""
    return trace(
        adapter.projector(model),
        (TensorSpec("states", "T", ("I", "T", width)),),
        (TensorSpec("embeds", "T", ("I", "T", embed)),),
        lambda values: {"states": values[0]},
    )
