"""float16 graphs made float32: what a host computes in, whatever the weights are stored in.

Runs before constants are folded, while scalars are still what the modelling code wrote; folding
first would round them to float16.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_HALF, _FULL = ir.DataType.FLOAT16, ir.DataType.FLOAT


def widen(model: ir.Model) -> None:
    """Every float16 value, cast and constant becomes float32; weights keep their storage type."""
    for node in model.graph.all_nodes():
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.INT and name in ("to", "dtype"):
                if attribute.value == _HALF.value:
                    node.attributes[name] = ir.AttrInt64(name, _FULL.value)
            elif attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == _HALF:
                tensor = ir.Tensor(attribute.value.numpy().astype(np.float32))
                node.attributes[name] = ir.AttrTensor(name, tensor)
        for value in node.outputs:
            _retype(value)
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        _retype(value)


def _retype(value: ir.Value) -> None:
    if value.dtype == _HALF:
        # A type of its own: clones of a model share theirs.
        value.type = ir.TensorType(_FULL)
