"""What ONNX numbers and names: element types, operator sets, domains.

Needs no package, so that the op set and the runtime can name a type without onnx.
"""

from __future__ import annotations

FLOAT, INT8, INT32, INT64, BOOL, FLOAT16, INT4 = 1, 3, 6, 7, 9, 10, 22
"""Element types."""
ELEMENT_TYPES = {
    "float32": FLOAT,
    "int8": INT8,
    "int32": INT32,
    "int64": INT64,
    "float16": FLOAT16,
    "int4": INT4,
}
"""By the names that the tables of inputs and outputs use."""
END = 2**63 - 1
"""Where a Slice ends that takes all to the end of an axis."""
ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1, "int32": 4, "int64": 8}

OPSET = 21
IR_VERSION = 10
"""Of every graph: the newest that ONNX Runtime 1.23 and TensorRT 10.3 both read."""
STANDARD_DOMAINS = ("", "ai.onnx")
CONTRIB_DOMAIN = "com.microsoft"
OWN_DOMAIN = "tightrope"
OWN_OPSET = 2
"""Version of our own op set; it rises with any change but an appended input or attribute."""


def element_type(dtype: str, activation: int) -> int:
    """Number of an element type; "activation" is the graph's own float."""
    return activation if dtype == "activation" else ELEMENT_TYPES[dtype]
