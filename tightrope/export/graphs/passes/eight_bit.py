"""Products of linear layers in int8, whose inputs ONNX Runtime rounds as they come."""

from __future__ import annotations

import onnx_ir as ir

from tightrope.export.graphs.passes.linear import LAYOUT, PARAMETER, part_of, stored_as
from tightrope.export.graphs.passes.replace import replace_value
from tightrope.interface.onnx import CONTRIB_DOMAIN

OF_INT8 = ("int8", "int8_scale")
"""Layouts of a matrix in int8: codes [K,N], float32 scales [N]."""


def to_int8(model: ir.Model) -> None:
    """Every product with a linear layer's matrix, and the bias that is added to it.

    Inputs are rounded to 8 bits over the whole of a call, weights one scale an output. What
    `split_wide` cut stays as it is.
    """
    for node in list(model.graph):
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or weight.metadata_props.get(LAYOUT) != "transposed":
            continue
        if part_of(weight) is not None:
            continue
        assert weight.shape is not None
        rows, columns = int(weight.shape[0]), int(weight.shape[1])
        parameter = weight.metadata_props[PARAMETER]
        codes, scale = (
            stored_as(model, parameter, layout, dtype, shape)
            for layout, dtype, shape in zip(
                OF_INT8,
                (ir.DataType.INT8, ir.DataType.FLOAT),
                ([rows, columns], [columns]),
                strict=True,
            )
        )
        last, bias = _bias(node)
        product = ir.Node(
            CONTRIB_DOMAIN, "DynamicQuantizeMatMul", [node.inputs[0], codes, scale, None, bias]
        )
        model.graph.insert_before(last, product)
        replace_value(last.outputs[0], product.outputs[0])
        model.graph.remove([node, last] if last is not node else node, safe=True)
        model.graph.opset_imports[CONTRIB_DOMAIN] = 1


def _bias(product: ir.Node) -> tuple[ir.Node, ir.Value | None]:
    """The node that adds a vector to a product alone, and the vector; else the product itself."""
    uses = product.outputs[0].uses()
    if len(uses) != 1 or product.outputs[0].is_graph_output():
        return product, None
    (use,) = uses
    other = use.node.inputs[1 - use.idx] if use.node.op_type == "Add" else None
    if other is None or not other.is_initializer() or other.shape is None or len(other.shape) != 1:
        return product, None
    return use.node, other
