"""Products too wide for one: the language model's head, by parts of its vocabulary.

While TensorRT builds a product it asks for contiguous memory of 1.73 times its weights, which for
152,000 tokens is more than a small board has in one piece. All graphs are cut alike, so that they
share what is stored.
"""

from __future__ import annotations

import onnx_ir as ir

from tightrope.export.graphs.passes.linear import LAYOUT, PARAMETER, column_parts, stored_as
from tightrope.export.graphs.passes.replace import replace_value


def split_wide(model: ir.Model) -> None:
    """Products with a matrix [K,N] of too many columns become several, joined behind."""
    for node in list(model.graph):
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or weight.metadata_props.get(LAYOUT) != "transposed":
            continue
        kind, parameter = weight.dtype, weight.metadata_props[PARAMETER]
        assert weight.shape is not None and weight.name is not None and kind is not None
        rows, columns = int(weight.shape[0]), int(weight.shape[1])
        if len(parts := column_parts(columns)) == 1:
            continue
        products = []
        for place, some in enumerate(parts):
            shape = [rows, some.stop - some.start]
            stored = stored_as(model, parameter, "transposed", kind, shape, place)
            product = ir.Node("", "MatMul", [node.inputs[0], stored])
            product.outputs[0].type = ir.TensorType(kind)
            products.append(product)
        axis = ir.AttrInt64("axis", -1)
        joined = ir.Node("", "Concat", [each.outputs[0] for each in products], attributes=[axis])
        model.graph.insert_before(node, [*products, joined])
        replace_value(node.outputs[0], joined.outputs[0])
        model.graph.remove(node, safe=True)
        if not weight.uses():
            model.graph.initializers.pop(weight.name)
