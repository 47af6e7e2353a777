"""`Int4MatMul` as DequantizeLinear and MatMul, the form that ONNX Runtime and TensorRT fuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder


def body(op: OpBuilder, x: ir.Value, weight: ir.Value, scale: ir.Value, block_size: int) -> Any:
    """y [...,N]; x, scale and y in one float type."""
    return op.MatMul(x, op.DequantizeLinear(weight, scale, axis=0, block_size=block_size))
