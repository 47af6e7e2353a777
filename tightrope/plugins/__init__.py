"""The op set: one op, one folder, its faces tested against each other.

A folder holds `schema.py` (names, types, attributes), `reference.py` (numpy in float32, the
oracle), `body.py` (standard ONNX operators, for graphs that no plugin serves), `cases.py` (calls
that a face may get wrong) and `plugin.py` (how it becomes a plugin of TensorRT).
"""
