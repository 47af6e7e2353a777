"""`SelectTokens`: the indices that stay when only K of V candidates may.

`candidates` are places in 0..S-1 (the visual tokens); everything else stays. K is the length of
`keep_ramp`, whose values are not read: every shape is then an expression of input shapes.
"""

from tightrope.interface.tensors import KEEP_RAMP, TensorSpec
from tightrope.plugins.schema import OpSchema

SCHEMA = OpSchema(
    name="SelectTokens",
    inputs=(
        TensorSpec("score", "float32", ("N", "S")),
        TensorSpec("candidates", "int64", ("N", "V")),
        TensorSpec(KEEP_RAMP, "int64", ("K",)),
    ),
    outputs=(
        # Ascending; equal scores go to the lower index.
        TensorSpec("index", "int64", ("N", "S-V+K")),
        # Where the kept candidates stand in the shortened sequence, for a next stage.
        TensorSpec("candidates", "int64", ("N", "K")),
    ),
    attributes={},
)
