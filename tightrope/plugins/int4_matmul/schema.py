"""`Int4MatMul`: x times a symmetric int4 weight with one scale per block of inputs."""

from tightrope.plugins.schema import Argument, OpSchema

SCHEMA = OpSchema(
    name="Int4MatMul",
    inputs=(
        Argument(name="x", dtype="T", axes=("...", "K")),
        Argument(name="weight", dtype="int4", axes=("K", "N")),
        Argument(name="scale", dtype="T", axes=("K/block", "N")),
    ),
    outputs=(Argument(name="y", dtype="T", axes=("...", "N")),),
    attributes={"block_size": 32},
)
