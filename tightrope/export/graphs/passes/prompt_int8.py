"""Products of a prompt in int8, for processors with matrix units of it.

Such a unit multiplies bytes several times as fast as anything else that a CPU has, and wants one
scale for all inputs of an output. Weights bear that: their codes have four bits. Inputs do not,
some lie far from all others; so each is two bytes, a coarse one and what that leaves, which are
rows of one product.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tightrope.export.graphs.passes.linear import PARAMETER, matrix_in_int8, part_of
from tightrope.export.graphs.passes.replace import put_in_place
from tightrope.interface.onnx import CONTRIB_DOMAIN, OWN_DOMAIN
from tightrope.plugins import int4_matmul
from tightrope.plugins.builder import OpBuilder

OF_PROMPTS = ("prompt_codes", "prompt_scale")
"""Layouts of a matrix in codes, made anew for this: int8 [K,N], float32 scales [N]."""
_MOST, _ZERO = 127, np.uint8(128)
_FINER = np.float32(1 / (2 * _MOST))
"""Step of the second byte, in steps of the first."""
_LEAST = np.float32(1e-30)
"""Of a row's largest input; rows of padding may be zero."""
_Halves = tuple[ir.Value, ir.Value]


def multiply_in_int8(model: ir.Model) -> None:
    """Every product with codes over more than a row's last token."""
    halves: dict[ir.Value, _Halves] = {}
    for number, node in enumerate(list(model.graph)):
        if (node.domain, node.op_type) != (OWN_DOMAIN, int4_matmul.SCHEMA.name):
            continue
        x, weight = node.inputs[0], node.inputs[1]
        assert x is not None and weight is not None and weight.shape is not None
        if part_of(weight) is not None or _is_one_token(x):
            continue
        inputs, outputs = int(weight.shape[0]), int(weight.shape[1])
        op = OpBuilder(f"prompt.{number}")
        if x not in halves:
            halves[x] = _halved(op, x, inputs)
        parameter = weight.metadata_props[PARAMETER]
        codes, scale = matrix_in_int8(model, parameter, OF_PROMPTS, inputs, outputs)
        put_in_place(model, node, op, [_product(op, x, halves[x], codes, scale)])
        model.graph.opset_imports[CONTRIB_DOMAIN] = 1


def _is_one_token(x: ir.Value) -> bool:
    """Whether it holds one token a row, as the head's input does."""
    return x.shape is not None and len(x.shape) == 3 and x.shape[1] == 1


def _halved(op: OpBuilder, x: ir.Value, inputs: int) -> _Halves:
    """uint8 [2*rows,K], coarse rows before fine ones, and float32 [2,rows,1], what one is worth."""
    rows = op.Reshape(x, [-1, inputs])
    ends = op.ReduceMax(rows, [1], keepdims=0), op.Neg(op.ReduceMin(rows, [1], keepdims=0))
    step = op.Mul(op.Max(*ends, _LEAST), np.float32(1 / _MOST))
    zero = op.Expand(_ZERO, op.Shape(step))
    coarse = op.QuantizeLinear(rows, step, zero, axis=0)
    left = op.Sub(rows, op.DequantizeLinear(coarse, step, zero, axis=0))
    finer = op.Mul(step, _FINER)
    fine = op.QuantizeLinear(left, finer, zero, axis=0)
    worth = op.Reshape(op.Concat(step, finer, axis=0), [2, -1, 1])
    return op.Concat(coarse, fine, axis=0), worth


def _product(
    op: OpBuilder, x: ir.Value, halves: _Halves, codes: ir.Value, scale: ir.Value
) -> ir.Value:
    """y [...,N] of x [...,K]."""
    both, worth = halves
    assert codes.shape is not None
    outputs = int(codes.shape[1])
    each = op.MatMulIntegerToFloat(both, codes, np.float32(1), scale, _ZERO, domain=CONTRIB_DOMAIN)
    parts = op.Mul(op.Reshape(each, [2, -1, outputs]), worth)
    rows = op.ReduceSum(parts, [0], keepdims=0)
    lengths = op.Shape(x, start=0, end=-1)
    result: ir.Value = op.Reshape(rows, op.Concat(lengths, [outputs], axis=0))
    return result
