"""`Int4MatMul`: x times a symmetric int4 weight with one scale per block of inputs."""

from tightrope.interface.tensors import TensorSpec
from tightrope.plugins.schema import OpSchema

SCHEMA = OpSchema(
    name="Int4MatMul",
    inputs=(
        TensorSpec("x", "activation", ("...", "In")),
        TensorSpec("weight", "int4", ("In", "Out")),
        TensorSpec("scale", "activation", ("In/block", "Out")),
    ),
    outputs=(TensorSpec("y", "activation", ("...", "Out")),),
    attributes={"block_size": 32},
)
