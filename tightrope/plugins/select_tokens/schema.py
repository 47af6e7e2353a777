"""`SelectTokens`: the indices that stay when only K of V candidates may.

`candidates` are places in 0..S-1 (the visual tokens); everything else stays. K is the length of
`keep_ramp`, whose values are not read: every shape is then an expression of input shapes.
"""

from tightrope.plugins.schema import Argument, OpSchema

SCHEMA = OpSchema(
    name="SelectTokens",
    inputs=(
        Argument(name="score", dtype="float32", axes=("N", "S")),
        Argument(name="candidates", dtype="int64", axes=("N", "V")),
        Argument(name="keep_ramp", dtype="int64", axes=("K",)),
    ),
    outputs=(
        # Ascending; equal scores go to the lower index.
        Argument(name="index", dtype="int64", axes=("N", "S-V+K")),
        # Where the kept candidates stand in the shortened sequence, for a next stage.
        Argument(name="candidates", dtype="int64", axes=("N", "K")),
    ),
    attributes={},
)
