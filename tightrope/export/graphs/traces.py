"""Every graph of a bundle once: traced or written, in float16 and without weights."""

from __future__ import annotations

import onnx_ir as ir

from tightrope.export.graphs.passes.linear import store_transposed
from tightrope.export.graphs.passes.wide import split_wide
from tightrope.export.graphs.select import build_select
from tightrope.export.recipe import Recipe
from tightrope.export.schedules import SCHEDULES
from tightrope.export.selectors import SELECTORS
from tightrope.export.tracing.decoder import trace_decoder
from tightrope.export.tracing.tower import trace_projector, trace_tower
from tightrope.export.tracing.trace import fake_model, fake_tensors
from tightrope.interface.names import Role
from tightrope.plugins.slot_attention import SCHEMA as SLOT_ATTENTION
from tightrope.progress import Progress

Traces = dict[tuple[Role, str], ir.Model]
"""By role (decoder, vision, select) and method."""


def trace_all(recipe: Recipe, progress: Progress) -> Traces:
    """The graphs; matrices of linear layers are read as products read them.

    progress: told what is traced and its share of the tracing.
    """
    traces: Traces = {}
    source, embed = recipe.checkpoint, recipe.dims.hidden_size
    steps = ["", *recipe.schedules]
    count = len(steps) + (recipe.vision is not None)
    with fake_tensors():
        for number, name in enumerate(steps):
            progress(f"tracing the decoder {name}".rstrip(), number / count)
            model = fake_model(source.auto_class, source.config)
            traces["decoder", name] = trace_decoder(model, recipe.dims, SCHEDULES.get(name))
        projector = None
        if recipe.vision is not None:
            progress("tracing the vision tower", (count - 1) / count)
            model = fake_model(source.auto_class, source.config)
            traces["vision", ""] = trace_tower(model, recipe.vision, embed)
            projector = trace_projector(model, recipe.vision, embed)
    for graph in (*traces.values(), *([] if projector is None else [projector])):
        store_transposed(graph)
        split_wide(graph)
    if recipe.vision is not None and projector is not None:
        visual = recipe.vision.host.output_rows(embed)
        for name in recipe.selectors:
            traces["select", name] = build_select(SELECTORS[name], visual, projector)
    return traces


def windows_of(traces: Traces) -> tuple[int, ...]:
    """[L]: the newest tokens that each layer of the decoder sees, 0 where it sees all."""
    trace = traces.get(("decoder", ""))
    nodes = () if trace is None else trace.graph
    return tuple(
        node.attributes.get_int("window", 0)
        for node in nodes
        if node.op_type == SLOT_ATTENTION.name
    )
