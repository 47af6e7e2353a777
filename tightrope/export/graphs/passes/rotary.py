"""Rotary embedding as ONNX Runtime's own operator, for host graphs.

Hugging Face writes x * cos + rotate_half(x) * sin: seven nodes each for query and key of every
layer. At one token a step it is the number of nodes that costs, not what they compute.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tightrope.export.graphs.passes.replace import replace_value
from tightrope.interface.onnx import CONTRIB_DOMAIN
from tightrope.plugins.builder import OpBuilder


def fuse_rotary(model: ir.Model) -> None:
    """Replace every full rotation by halves; other rotations stay as they are."""
    tables: dict[tuple[ir.Value, ir.Value], tuple[ir.Value, ...]] = {}
    for number, node in enumerate(list(model.graph)):
        found = _rotation(node)
        if found is None:
            continue
        x, cos, sin = found
        op = OpBuilder(f"rotary.{number}")
        if (cos, sin) not in tables:
            tables[cos, sin] = _tables(op, cos, sin)
        places, cos_table, sin_table = tables[cos, sin]
        rotated = op.RotaryEmbedding(x, places, cos_table, sin_table, domain=CONTRIB_DOMAIN)
        model.graph.insert_before(node, op.nodes)
        replace_value(node.outputs[0], rotated)
        model.graph.remove(node, safe=True)
    if tables:
        model.graph.opset_imports[CONTRIB_DOMAIN] = 1


def _tables(op: OpBuilder, cos: ir.Value, sin: ir.Value) -> tuple[ir.Value, ...]:
    """position_ids [N,S] and tables [N*S,D/2] of cos and sin [N,1,S,D], whose halves are equal."""
    assert cos.shape is not None
    half = int(cos.shape[-1]) // 2
    tables = [op.Reshape(op.Slice(value, [0], [half], [-1]), [-1, half]) for value in (cos, sin)]
    rows = op.Concat(op.dim(cos, 0), op.dim(cos, 2), axis=0)
    count = op.ReduceProd(rows, [0], keepdims=0)
    return (op.Reshape(op.iota(count), rows), *tables)


def _rotation(node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """x, cos and sin if `node` ends x * cos + Concat(-x[D/2:], x[:D/2]) * sin."""
    if node.op_type != "Add":
        return None
    plain, turned = (_producer(value, "Mul") for value in node.inputs)
    if plain is None or turned is None:
        return None
    x, cos = plain.inputs
    halves, sin = _producer(turned.inputs[0], "Concat"), turned.inputs[1]
    if halves is None or len(halves.inputs) != 2 or x is None or cos is None or sin is None:
        return None
    negated = _producer(halves.inputs[0], "Neg")
    back = None if negated is None else _producer(negated.inputs[0], "Slice")
    front = _producer(halves.inputs[1], "Slice")
    if back is None or front is None or back.inputs[0] is not x or front.inputs[0] is not x:
        return None
    if x.shape is None or len(x.shape) != 4 or not isinstance(x.shape[3], int):
        return None
    width = x.shape[3]
    whole = all(
        value.shape is not None and len(value.shape) == 4 and value.shape[3] == width
        for value in (cos, sin)
    )
    starts = [_number(part.inputs[1]) for part in (front, back)]
    return (x, cos, sin) if whole and starts == [0, width // 2] else None


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == op_type else None


def _number(value: ir.Value | None) -> int | None:
    constant = None if value is None else ir.convenience.get_const_tensor(value)
    return None if constant is None else int(np.ravel(constant.numpy())[0])
