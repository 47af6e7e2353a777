"""What a graph for one token a call can leave out: where S is 1, moving its axis moves nothing.

Every layer reshapes and transposes queries, keys, values and what attention gives. Numbers stay
where they are; at one token a step it is the nodes that cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from tightrope.export.graphs.passes.replace import replace_value
from tightrope.interface.onnx import CONTRIB_DOMAIN
from tightrope.interface.tensors import INPUTS_EMBEDS


def drop_transposes(model: ir.Model) -> None:
    """Transposes that move the axis of one token become reshapes, all reshapes say its length.

    Reads the names that torch gave to lengths, so it stands before own ops are lowered.
    """
    (embeds,) = (value for value in model.graph.inputs if value.name == INPUTS_EMBEDS)
    assert embeds.shape is not None
    one = str(embeds.shape[1])
    for node in list(model.graph):
        if node.op_type not in ("Transpose", "Reshape"):
            continue
        source, result = node.inputs[0], node.outputs[0]
        if source is None or source.shape is None or result.shape is None:
            continue
        if node.op_type == "Transpose" and not _moves_nothing(node, source.shape, one):
            continue
        shape = _shape(source.shape, result.shape, one)
        if shape is not None:
            _reshape_instead(model, node, source, shape)
    merge_reshapes(model)
    _rotate_flat(model)


def merge_reshapes(model: ir.Model) -> None:
    """A reshape of a reshape reads what the first one read, if both keep the first axis."""
    for node in model.graph:
        while True:
            inner = _reshape_before(node.inputs[0]) if _kept_shape(node) is not None else None
            if inner is None:
                break
            node.replace_input_with(0, inner.inputs[0])


def _moves_nothing(node: ir.Node, shape: ir.Shape, one: str) -> bool:
    """Whether the axes that are longer than 1 stay in their order."""
    axes = node.attributes["perm"].as_ints()
    order = [axis for axis in axes if str(shape[axis]) not in (one, "1")]
    return order == sorted(order)


def _shape(source: ir.Shape, result: ir.Shape, one: str) -> list[int] | None:
    """The constant shape of `result`, which starts as `source` does; None if it needs others."""
    if not len(source) or not len(result) or str(source[0]) != str(result[0]):
        return None
    lengths = [1 if str(length) == one else length for length in list(result)[1:]]
    known = [length for length in lengths if isinstance(length, int)]
    return [0, *known] if len(known) == len(lengths) else None


def _reshape_instead(
    model: ir.Model, node: ir.Node, source: ir.Value, shape: Sequence[int]
) -> ir.Value:
    """`source` in a constant shape in the place of `node`."""
    tensor = ir.AttrTensor("value", ir.Tensor(np.array(shape, np.int64)))
    constant = ir.Node("", "Constant", [], attributes=[tensor])
    constant.outputs[0].dtype = ir.DataType.INT64
    reshape = ir.Node("", "Reshape", [source, constant.outputs[0]])
    model.graph.insert_before(node, [constant, reshape])
    replace_value(node.outputs[0], reshape.outputs[0])
    model.graph.remove(node, safe=True)
    return reshape.outputs[0]


def _rotate_flat(model: ir.Model) -> None:
    """Heads [N,H,1,D] are rotated as rows [N,1,H*D], before they are parted."""
    for node in list(model.graph):
        if (node.domain, node.op_type) != (CONTRIB_DOMAIN, "RotaryEmbedding"):
            continue
        parted = _reshape_before(node.inputs[0])
        rows = None if parted is None else parted.inputs[0]
        if parted is None or rows is None or rows.shape is None or len(rows.shape) != 3:
            continue
        flat = ir.Node(CONTRIB_DOMAIN, node.op_type, [rows, *node.inputs[1:]])
        flat.outputs[0].type, flat.outputs[0].shape = rows.type, rows.shape
        model.graph.insert_before(node, flat)
        _reshape_instead(model, node, flat.outputs[0], _kept_shape(parted) or [])


def _reshape_before(value: ir.Value | None) -> ir.Node | None:
    producer = None if value is None else value.producer()
    return producer if producer is not None and _kept_shape(producer) is not None else None


def _kept_shape(node: ir.Node) -> list[int] | None:
    """The constant shape of a reshape that keeps the first axis and no other by its place."""
    shape = node.inputs[1] if node.op_type == "Reshape" else None
    constant = None if shape is None else ir.convenience.get_const_tensor(shape)
    if constant is None or node.attributes.get_int("allowzero", 0):
        return None
    lengths = [int(length) for length in constant.numpy()]
    return lengths if lengths and lengths[0] == 0 and 0 not in lengths[1:] else None
