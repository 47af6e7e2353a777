"""Slots in int8 as floats again, in standard ONNX operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tightrope.interface.onnx import FLOAT

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder


def from_int8(op: OpBuilder, codes: ir.Value, scale: ir.Value, activation: int) -> ir.Value:
    """Keys or values [N,Hkv,U,D] of int8 `codes` of that shape and float32 `scale` [N,Hkv,U,1].

    TensorRT's DequantizeLinear takes constant scales alone: it widens, and a product scales.
    """
    rows = op.Mul(op.DequantizeLinear(codes, np.float32(1)), scale)
    return rows if activation == FLOAT else op.Cast(rows, to=activation)
