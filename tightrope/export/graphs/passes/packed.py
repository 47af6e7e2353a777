"""VarlenAttention over one segment as ONNX Runtime's own operator, for host graphs.

It holds no map of all tokens to all tokens, which takes 255 MB in every block for an image of 2,304
patches and 12 heads.
"""

from __future__ import annotations

import onnx_ir as ir

from tightrope.export.graphs.passes.replace import inputs_of, put_in_place
from tightrope.interface.onnx import CONTRIB_DOMAIN, OWN_DOMAIN
from tightrope.plugins import varlen_attention
from tightrope.plugins.builder import OpBuilder

_BOUNDS = 2
"""Of one segment: where it begins and ends."""


def fuse_whole(model: ir.Model) -> None:
    """Replace the attention of all tokens to all; that of windows stays as it is."""
    for number, node in enumerate(list(model.graph)):
        if node.domain != OWN_DOMAIN or node.op_type != varlen_attention.SCHEMA.name:
            continue
        *operands, cu_seqlens = inputs_of(node)
        if cu_seqlens.shape is None or cu_seqlens.shape[0] != _BOUNDS:
            continue
        query = operands[0]
        assert query.shape is not None
        heads = int(query.shape[1])
        op = OpBuilder(f"whole.{number}")
        rows = [op.Reshape(op.Transpose(part, perm=[0, 2, 1, 3]), [0, 0, -1]) for part in operands]
        mixed = op.MultiHeadAttention(
            *rows,
            domain=CONTRIB_DOMAIN,
            num_heads=heads,
            scale=node.attributes["scale"].as_float(),
        )
        out = op.Transpose(op.Reshape(mixed, [0, 0, heads, -1]), perm=[0, 2, 1, 3])
        put_in_place(model, node, op, [out])
        model.graph.opset_imports[CONTRIB_DOMAIN] = 1
