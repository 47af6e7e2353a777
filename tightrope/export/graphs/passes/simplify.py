"""What torch's exporter writes, in the shorter form that runtimes fuse."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from tightrope.export.graphs.passes.replace import replace_value


def simplify(model: ir.Model) -> None:
    """Fold constants, drop no-ops, and put reshapes and norms in their short forms."""
    # Folding alone: the optimizer's rewrite rules take ten times as long and find little more.
    optimizer.fold_constants_ir(model, onnx_shape_inference=False)
    common.IdentityEliminationPass()(model)
    _drop_casts_to_same(model)
    fix_reshapes(model)
    divide_in_norms(model)
    tidy(model)


def tidy(model: ir.Model) -> None:
    """Merge equal nodes and remove unused ones."""
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)


def _drop_casts_to_same(model: ir.Model) -> None:
    for node in list(model.graph):
        if node.op_type != "Cast" or node.inputs[0] is None:
            continue
        source = node.inputs[0]
        if source.dtype is not None and source.dtype.value == node.attributes["to"].as_int():
            old = node.outputs[0]
            if not old.is_graph_output():
                ir.convenience.replace_all_uses_with(old, source)
                model.graph.remove(node, safe=True)


def fix_reshapes(model: ir.Model) -> None:
    """A reshape that keeps leading axes and computes one gets a constant shape: 0, 0, -1, D.

    torch names symbolic lengths, so equal names in input and output mean an axis that is kept.
    """
    for node in list(model.graph):
        if node.op_type != "Reshape":
            continue
        source, result = node.inputs[0], node.outputs[0]
        if source is None or source.shape is None or result.shape is None:
            continue
        shape = _constant_shape(source.shape, result.shape)
        if shape is None:
            continue
        attribute = ir.AttrTensor("value", ir.Tensor(shape))
        constant = ir.Node("", "Constant", [], attributes=[attribute])
        constant.outputs[0].dtype = ir.DataType.INT64
        model.graph.insert_before(node, constant)
        node.replace_input_with(1, constant.outputs[0])
        node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)


def _constant_shape(source: ir.Shape, result: ir.Shape) -> npt.NDArray[np.int64] | None:
    shape = []
    for i, length in enumerate(result):
        if isinstance(length, int):
            shape.append(length)
        elif i < len(source) and str(source[i]) == str(length):
            shape.append(0)
        else:
            shape.append(-1)
    return np.array(shape, np.int64) if shape.count(-1) <= 1 else None


def divide_in_norms(model: ir.Model) -> None:
    """x * (1 / sqrt(m)) becomes x / sqrt(m): the form that ONNX Runtime fuses to one RMS norm."""
    for node in list(model.graph):
        if node.op_type != "Mul":
            continue
        for place, factor in enumerate(node.inputs):
            producer = None if factor is None else factor.producer()
            if producer is None or producer.op_type != "Reciprocal":
                continue
            quotient = ir.Node("", "Div", [node.inputs[1 - place], producer.inputs[0]])
            model.graph.insert_before(node, quotient)
            replace_value(node.outputs[0], quotient.outputs[0])
            model.graph.remove(node, safe=True)
            break
