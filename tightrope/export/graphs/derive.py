"""From one trace to every graph of a bundle: which passes make which file.

host.*: float32, with operators that only ONNX Runtime has. int8.*: the same, calls of more than one
token multiply in int8. standard.*: the bundle's own float
type, standard operators, prefill and decode apart. plugins.*: the same float type, own ops as they
were traced.
"""

from __future__ import annotations

import onnx_ir as ir

from tightrope.export.graphs.files import GraphFile
from tightrope.export.graphs.passes.branch import by_length
from tightrope.export.graphs.passes.cut import cut_by_splits
from tightrope.export.graphs.passes.eight_bit import to_int8
from tightrope.export.graphs.passes.lengths import share_lengths
from tightrope.export.graphs.passes.lower import lower
from tightrope.export.graphs.passes.own import keep_own
from tightrope.export.graphs.passes.packed import fuse_whole
from tightrope.export.graphs.passes.prompt_int8 import multiply_in_int8
from tightrope.export.graphs.passes.rotary import fuse_rotary
from tightrope.export.graphs.passes.simplify import simplify, tidy
from tightrope.export.graphs.passes.single import drop_transposes, merge_reshapes
from tightrope.export.graphs.passes.widen import widen
from tightrope.export.tracing.trace import axes_of, quiet
from tightrope.interface.names import GraphName
from tightrope.interface.onnx import CONTRIB_DOMAIN, IR_VERSION, OPSET, OWN_DOMAIN, OWN_OPSET
from tightrope.interface.tensors import KV_BUDGET, QUERY_REACH
from tightrope.plugins.slot_attention.body import Form

_IDLE: dict[str, str] = {"append": KV_BUDGET, "step": QUERY_REACH}
"""By form what it does not read: nothing leaves in it, or its one token reaches itself."""


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
            fuse_whole(model)
            tidy(model)
    return model


def derive(model: ir.Model, file: GraphFile) -> ir.Model:
    """The graph of one file from a simplified trace, which stays as it is."""
    with quiet():
        several = _prompt_in_int8(model) if file.name.variant == "int8" else model
        if file.form == "both":
            graph = by_length(_lean(model), _lowered(several, "either"))
        elif file.form == "own":
            graph = _kept(model)
        else:
            graph = _lowered(several, file.form)
        if file.name.variant not in ("host", "int8"):
            _shorten(graph)
    for value in list(graph.graph.inputs):
        if value.name == _IDLE.get(file.form):  # TensorRT refuses an idle input
            assert not value.uses()
            graph.graph.inputs.remove(value)
    _settle(graph, file.single)
    return graph


def in_int8(model: ir.Model) -> ir.Model | None:
    """The host's tower with products in int8, from its simplified trace, which stays as it is.

    None where it has no product for that.
    """
    graph = model.clone()
    with quiet():
        if not to_int8(graph):
            return None
    return derive(graph, GraphFile(GraphName("host", "vision"), ("vision", "")))


def _prompt_in_int8(model: ir.Model) -> ir.Model:
    model = model.clone()
    multiply_in_int8(model)
    return model


def _lowered(model: ir.Model, form: Form) -> ir.Model:
    model = model.clone()
    lower(model, form)
    tidy(model)
    return model


def _kept(model: ir.Model) -> ir.Model:
    model = model.clone()
    keep_own(model)
    tidy(model)  # else matrices that are in codes stay as well
    return model


def _shorten(model: ir.Model) -> None:
    """In a form of which TensorRT's parser makes fewer layers."""
    cut_by_splits(model)
    share_lengths(model)
    tidy(model)


def _lean(model: ir.Model) -> ir.Model:
    """For one token a call, on ONNX Runtime."""
    model = model.clone()
    drop_transposes(model)
    lower(model, "lean")
    merge_reshapes(model)
    tidy(model)
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
    graph.opset_imports[""] = OPSET
    if CONTRIB_DOMAIN in used:
        graph.opset_imports[CONTRIB_DOMAIN] = 1
    if OWN_DOMAIN in used:
        graph.opset_imports[OWN_DOMAIN] = OWN_OPSET
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "tightrope", None
    model.metadata_props.clear()
