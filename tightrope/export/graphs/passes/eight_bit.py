"""Products of linear layers in int8, whose inputs ONNX Runtime rounds as they come."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from tightrope.export.graphs.passes.linear import LAYOUT, PARAMETER, matrix_in_int8, part_of
from tightrope.export.graphs.passes.replace import replace_value
from tightrope.interface.onnx import CONTRIB_DOMAIN

OF_INT8 = ("int8", "int8_scale")
"""Layouts of a matrix in int8: codes [K,N], float32 scales [N]."""


def to_int8(model: ir.Model) -> int:
    """Every product with a linear layer's matrix, and the bias that is added to it; how many.

    Inputs are rounded to 8 bits over the whole of a call, weights one scale an output. What
    `split_wide` cut stays as it is.
    """
    count = 0
    for node in list(model.graph):
        if (layer := _of_rows(node) or _of_matrix(node)) is None:
            continue
        count += 1
        codes, scale = matrix_in_int8(model, layer.parameter, OF_INT8, layer.inputs, layer.outputs)
        product = ir.Node(
            CONTRIB_DOMAIN,
            "DynamicQuantizeMatMul",
            [node.inputs[0], codes, scale, None, layer.bias],
        )
        model.graph.insert_before(layer.last, product)
        replace_value(layer.last.outputs[0], product.outputs[0])
        model.graph.remove([node, layer.last] if layer.last is not node else node, safe=True)
        model.graph.opset_imports[CONTRIB_DOMAIN] = 1
    return count


@dataclass(frozen=True, slots=True)
class _Layer:
    """A linear layer in a graph."""

    parameter: str
    inputs: int
    outputs: int
    last: ir.Node
    bias: ir.Value | None


def _of_rows(node: ir.Node) -> _Layer | None:
    """A layer over [...,rows,K], which torch writes as a product and a sum."""
    weight = node.inputs[1] if node.op_type == "MatMul" else None
    if weight is None or weight.metadata_props.get(LAYOUT) != "transposed":
        return None
    if part_of(weight) is not None:
        return None
    assert weight.shape is not None
    rows, columns = int(weight.shape[0]), int(weight.shape[1])
    return _Layer(weight.metadata_props[PARAMETER], rows, columns, *_bias(node))


def _of_matrix(node: ir.Node) -> _Layer | None:
    """A layer over [rows,K], which torch writes as one Gemm with the matrix as it is."""
    weight = node.inputs[1] if node.op_type == "Gemm" else None
    plain = all(node.attributes.get_float(name, 1.0) == 1 for name in ("alpha", "beta"))
    turned = [node.attributes.get_int(name, 0) for name in ("transA", "transB")]
    if weight is None or not weight.is_initializer() or not plain or turned != [0, 1]:
        return None
    assert weight.shape is not None and weight.name is not None
    columns, rows = int(weight.shape[0]), int(weight.shape[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and (bias.shape is None or len(bias.shape) != 1):
        return None
    return _Layer(weight.name, rows, columns, node, bias)


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
