"""The bodies of own ops as models of ONNX, computed in float32 by ONNX Runtime.

Written with onnx_ir, which whoever only answers does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from tightrope.arrays import Array
from tightrope.interface.onnx import FLOAT, IR_VERSION, OPSET, element_type
from tightrope.plugins.cases import Case
from tightrope.plugins.description import LEADING, Description, Form, rows_of
from tightrope.plugins.int4_matmul.reference import pack

_FIXED = ("H", "Hq", "Hkv", "D")
"""Axes whose lengths stand in a graph."""


def lacking() -> str:
    """Which package is missing here; empty if none is."""
    for package in ("onnxruntime", "onnx_ir"):
        try:
            import_module(package)
        except ImportError:
            return f"the package {package} is not here"
    return ""


class Body:
    """One form of an op's body; calls that differ in lengths alone share a session."""

    def __init__(self, description: Description, form: Form) -> None:
        self._description, self._form = description, form
        self._sessions: dict[str, Any] = {}

    def __call__(self, case: Case) -> Sequence[Array]:
        """Outputs of one call; raises what ONNX Runtime raises."""
        rows = rows_of(self._description.schema, case.inputs)
        given = zip(rows, (x for x in case.inputs if x is not None), strict=True)
        feeds = {row.name: array for row, array in given if row.dtype != "int4"}
        # Codes of four bits are weights of a graph.
        own = case.name if len(feeds) < len(rows) else ""
        key = repr((own, *(row.name for row in rows), sorted(case.attributes.items())))
        if key not in self._sessions:
            self._sessions[key] = self._session(case)
        session = self._sessions[key]
        read = {item.name: feeds[item.name] for item in session.get_inputs()}
        outputs: Sequence[Array] = session.run(None, read)
        return outputs

    def _session(self, case: Case) -> Any:
        import onnx_ir as ir
        import onnxruntime

        from tightrope.plugins.builder import OpBuilder

        schema, op = self._description.schema, OpBuilder("body")
        rows = iter(rows_of(schema, case.inputs))
        values = [None if array is None else _value(next(rows), array) for array in case.inputs]
        outputs = self._form.emit(op, values, case)
        for value, row in zip(outputs, schema.outputs, strict=True):
            value.name = f"{row.name}.out"
            value.type = ir.TensorType(ir.DataType(element_type(row.dtype, FLOAT)))
        there = [value for value in values if value is not None]
        graph = ir.Graph(
            [value for value in there if value.const_value is None],
            outputs,
            nodes=op.nodes,
            initializers=[value for value in there if value.const_value is not None],
            opset_imports={"": OPSET},
            name=schema.name,
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        # Else products with four-bit weights round what they multiply to eight bits.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString()
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _value(row: Any, array: Array) -> Any:
    """An input of the graph, or a weight of it."""
    import onnx_ir as ir

    if row.dtype == "int4":
        kind, shape = ir.DataType.INT4, ir.Shape(array.shape)
        codes = ir.PackedTensor(pack(array), kind, shape=shape, name=row.name)
        return ir.Value(name=row.name, type=ir.TensorType(kind), shape=shape, const_value=codes)
    kind = ir.DataType(element_type(row.dtype, FLOAT))
    shape = ir.Shape(array.shape)
    if LEADING not in row.axes:
        lengths = zip(row.axes, array.shape, strict=True)
        shape = ir.Shape([n if axis in _FIXED else axis for axis, n in lengths])
    return ir.Value(name=row.name, type=ir.TensorType(kind), shape=shape)
