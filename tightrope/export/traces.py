"""Every graph of a bundle once: traced or written, in float16 and without weights."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from tightrope.export.checkpoint import Checkpoint
from tightrope.export.choices import Choices
from tightrope.export.config import ExportConfig
from tightrope.export.decoder import trace_decoder
from tightrope.export.passes.linear import store_transposed, to_int4
from tightrope.export.select import build_select
from tightrope.export.selectors import SELECTORS
from tightrope.export.trace import fake_model, fake_tensors
from tightrope.export.vision import trace_projector, trace_vision

Progress = Callable[[str, float], None]
Traces = dict[str, ir.Model]


def trace_all(
    source: Checkpoint, config: ExportConfig, choices: Choices, progress: Progress
) -> tuple[Traces, list[str]]:
    """Graphs by name (decoder, decoder-<schedule>, vision, select-<method>), and notes.

    progress: called with what is done and its share of the tracing.
    """
    traces: Traces = {}
    schedules = {"": (), **choices.schedules}
    count = len(schedules) + (choices.vision is not None)
    with fake_tensors():
        for number, (name, stages) in enumerate(schedules.items()):
            progress(f"tracing the decoder {name}".rstrip(), number / count)
            model = fake_model(source.auto_class, source.config)
            graph = trace_decoder(model, stages)
            store_transposed(graph)
            traces[f"decoder-{name}" if name else "decoder"] = graph
        if choices.vision is not None:
            progress("tracing the vision tower", (count - 1) / count)
            traces |= _vision(source, choices)
    notes = []
    if config.precision == "int4":
        notes = _quantize(traces, config.block_size)
    return traces, notes


def _vision(source: Checkpoint, choices: Choices) -> Traces:
    adapter, info, embed = source.family.vision, choices.vision, choices.dims.hidden_size
    assert adapter is not None and info is not None
    model = fake_model(source.auto_class, source.config)
    tower = trace_vision(model, adapter, info, embed)
    projector = trace_projector(model, adapter, info.hidden_size, embed)
    for graph in (tower, projector):
        store_transposed(graph)
    traces = {"vision": tower}
    for name in choices.selectors:
        if SELECTORS[name].body is not None:
            traces[f"select-{name}"] = build_select(SELECTORS[name], info, embed, projector)
    return traces


def _quantize(traces: Traces, block_size: int) -> list[str]:
    """The decoders' matrices as int4; returns notes on what stays float16."""
    left: set[str] = set()
    for name, graph in traces.items():
        if name.startswith("decoder"):
            left.update(to_int4(graph, block_size))
    if not left:
        return []
    return [
        f"{len(left)} matrices stay float16: their inputs are no whole number of "
        f"{block_size}-blocks"
    ]
