"""`Int4MatMul`: x times a weight stored in codes of four bits, with one scale per block of inputs.

zero: whole numbers that are taken from the codes. shift: what is added to every weight of a block;
a block's inputs are summed for it. order: the input of each of the weight's rows. A weight that
four bits do not hold has codes of eight.
"""

from tightrope.interface.tensors import TensorSpec
from tightrope.plugins.schema import OpSchema

SCHEMA = OpSchema(
    name="Int4MatMul",
    inputs=(
        TensorSpec("x", "activation", ("...", "In")),
        TensorSpec("weight", "int4", ("In", "Out")),
        TensorSpec("scale", "activation", ("In/block", "Out")),
        TensorSpec("zero", "int4", ("In/block", "Out")),
        TensorSpec("shift", "activation", ("In/block", "Out")),
        TensorSpec("order", "int64", ("In",)),
    ),
    outputs=(TensorSpec("y", "activation", ("...", "Out")),),
    attributes={"block_size": 32},
    optional=("zero", "shift", "order"),
)
