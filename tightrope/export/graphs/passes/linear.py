"""Weights of linear layers, stored the way that a matrix product reads them."""

from __future__ import annotations

import onnx_ir as ir

from tightrope.export.graphs.passes.replace import replace_value
from tightrope.interface.onnx import OWN_DOMAIN
from tightrope.plugins import int4_matmul

PARAMETER, LAYOUT = "parameter", "layout"
INT4_LAYOUTS = ("codes", "scale")


def store_transposed(model: ir.Model) -> None:
    """`MatMul(x, Transpose(W))` reads W^T [K,N] straight from the weight file."""
    for node in list(model.graph):
        if node.op_type != "Transpose" or node.inputs[0] is None:
            continue
        weight = node.inputs[0]
        permutation = node.attributes["perm"].as_ints() if "perm" in node.attributes else ()
        if not weight.is_initializer() or tuple(permutation) != (1, 0):
            continue
        assert weight.shape is not None and weight.name is not None
        shape = [weight.shape[1], weight.shape[0]]
        stored = _stored(model, weight.name, "transposed", weight.dtype, shape)
        ir.convenience.replace_all_uses_with(node.outputs[0], stored)
        model.graph.remove(node, safe=True)


def to_int4(model: ir.Model, block_size: int) -> list[str]:
    """Products with a weight become Int4MatMul; returns the parameters left as they were.

    A weight stays as it is where its inputs are no whole number of blocks.
    """
    left = []
    for node in list(model.graph):
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or weight.metadata_props.get(LAYOUT) != "transposed":
            continue
        parameter = weight.metadata_props[PARAMETER]
        assert weight.shape is not None
        rows, columns = int(weight.shape[0]), int(weight.shape[1])
        if rows % block_size:
            left.append(parameter)
            continue
        parts = []
        for layout, dtype, shape in (
            ("codes", ir.DataType.INT4, [rows, columns]),
            ("scale", weight.dtype, [rows // block_size, columns]),
        ):
            parts.append(_stored(model, parameter, layout, dtype, shape))
        product = ir.Node(
            OWN_DOMAIN,
            int4_matmul.SCHEMA.name,
            [node.inputs[0], *parts],
            attributes=[ir.AttrInt64("block_size", block_size)],
        )
        model.graph.insert_before(node, product)
        replace_value(node.outputs[0], product.outputs[0])
        model.graph.remove(node, safe=True)
    return left


def _stored(
    model: ir.Model, parameter: str, layout: str, dtype: ir.DataType | None, shape: list[int]
) -> ir.Value:
    """The initializer of a parameter in one layout; equal ones are one."""
    name = f"{parameter}.{layout}"
    if name not in model.graph.initializers:
        assert dtype is not None
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        value.metadata_props[PARAMETER] = parameter
        value.metadata_props[LAYOUT] = layout
        model.graph.initializers.add(value)
    return model.graph.initializers[name]
