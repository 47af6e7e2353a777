"""From one trace to every graph of a bundle: which passes make which variant.

host.*: float32, `SlotAttention` behind an If, so that one session serves prefill and decode.
standard.*: the bundle's own float type, standard operators, prefill and decode apart.
"""

from __future__ import annotations

import onnx_ir as ir

from tightrope.export.passes import rotary
from tightrope.export.passes.lower import lower
from tightrope.export.passes.rotary import fuse_rotary
from tightrope.export.passes.simplify import simplify, tidy
from tightrope.export.passes.widen import widen
from tightrope.export.trace import ONNX_OPSET, axes_of, quiet

IR_VERSION = 10


def simplified(trace: ir.Model, *, wide: bool, host: bool) -> ir.Model:
    """A traced graph in short form, own ops still in it.

    wide: computing in float32. host: with operators that only ONNX Runtime has.
    """
    model = trace.clone()
    with quiet():
        if wide:
            widen(model)
        simplify(model)
        if host:
            fuse_rotary(model)
            tidy(model)
    return model


def derive(model: ir.Model, face: str, *, single: bool = False) -> ir.Model:
    """One variant of a simplified graph, which stays as it is; single: for one token a call."""
    model = model.clone()
    with quiet():
        lower(model, face)
        tidy(model)
    _settle(model, single)
    return model


def _settle(model: ir.Model, single: bool) -> None:
    """Axis names on inputs and outputs; inside, runtimes infer for themselves."""
    graph = model.graph
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.shape = None
            value.metadata_props.pop("pkg.torch.onnx.original_node_name", None)
    for value in (*graph.inputs, *graph.outputs):
        assert value.name is not None
        axes = axes_of(model, value.name)
        if single:
            axes = ["1" if axis == "S" else axis for axis in axes]
        value.shape = ir.Shape([int(axis) if axis.isdigit() else axis for axis in axes])
        value.metadata_props.clear()
    used = {node.domain for node in graph.all_nodes()}
    graph.opset_imports.clear()
    graph.opset_imports[""] = ONNX_OPSET
    if rotary.DOMAIN in used:
        graph.opset_imports[rotary.DOMAIN] = 1
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "tightrope", None
    model.metadata_props.clear()
