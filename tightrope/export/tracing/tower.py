"""The vision tower and its projector traced as graphs of their own."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from tightrope.export.recipe import Vision
from tightrope.export.tracing.trace import trace
from tightrope.interface.tensors import TensorSpec


def trace_tower(model: Any, vision: Vision, embed: int) -> ir.Model:
    """The tower's inputs to visual tokens of width `embed` and signals; inside `fake_tensors`."""
    host = vision.host
    module = vision.model.module(model, vision.info.signals)
    return trace(module, host.input_rows(), host.output_rows(embed), host.example_lengths())


def trace_projector(model: Any, vision: Vision, embed: int) -> ir.Model:
    """Tower states [I,T,Dv] to embeddings [I,T,E]; call inside `fake_tensors`."""
    return trace(
        vision.model.projector(model),
        (TensorSpec("states", "activation", ("I", "T", vision.model.width(model.config))),),
        (TensorSpec("embeds", "activation", ("I", "T", embed)),),
    )
