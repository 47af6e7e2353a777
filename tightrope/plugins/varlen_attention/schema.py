"""`VarlenAttention`: tokens of several images or windows, packed; each attends within its own.

Segment j is the tokens from `cu_seqlens[j]` up to `cu_seqlens[j + 1]`. The first is 0, the last T,
and none falls below the one before: a segment may be empty. No mask, no order inside a segment.
"""

from tightrope.interface.tensors import TensorSpec
from tightrope.plugins.schema import OpSchema

SCHEMA = OpSchema(
    name="VarlenAttention",
    inputs=(
        TensorSpec("query", "activation", (1, "H", "T", "D")),
        TensorSpec("key", "activation", (1, "H", "T", "D")),
        TensorSpec("value", "activation", (1, "H", "T", "D")),
        TensorSpec("cu_seqlens", "int32", ("G",)),
    ),
    outputs=(TensorSpec("out", "activation", (1, "H", "T", "D")),),
    # longest: no segment has more tokens; 0 where nothing is known.
    attributes={"scale": 1.0, "longest": 0},
)
