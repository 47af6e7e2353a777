"""`Int4MatMul` as DequantizeLinear and MatMul, the form that ONNX Runtime and TensorRT fuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder


def body(
    op: OpBuilder,
    x: ir.Value,
    weight: ir.Value,
    scale: ir.Value,
    block_size: int,
    zero: ir.Value | None = None,
    shift: ir.Value | None = None,
    order: ir.Value | None = None,
) -> Any:
    """y [...,N]; x, scale, shift and y in one float type.

    zero is for ONNX Runtime alone, TensorRT's int4 has none. With a shift x is [N,S,K].
    """
    if order is not None:
        x = op.Gather(x, order, axis=-1)
    parts = (weight, scale) if zero is None else (weight, scale, zero)
    y = op.MatMul(x, op.DequantizeLinear(*parts, axis=0, block_size=block_size))
    if shift is None:
        return y
    sums = op.ReduceSum(op.Reshape(x, [0, 0, -1, block_size]), [3], keepdims=0)
    return op.Add(y, op.MatMul(sums, shift))
