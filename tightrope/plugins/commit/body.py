"""`commit` as a graph of standard operators, for a runtime that launches no kernels.

    python -m tightrope.plugins.commit.body

writes float16.onnx and float32.onnx here, which the package ships: a runtime has no onnx.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from tightrope.interface.onnx import ELEMENT_TYPES, INT64, IR_VERSION, OPSET
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.commit import FLOATS, NEW, NEXT, PLACE, SLOTS, SOURCE, graph_file


def commit_graph(dtype: str) -> bytes:
    """Row `source[i]` of the new ones goes to row `place[i]` of the slots."""
    kind = ELEMENT_TYPES[dtype]
    rows = {SLOTS: (kind, "R", "D"), NEW: (kind, "T", "D"), SOURCE: (INT64, "M")}
    rows[PLACE] = (INT64, "M", 1)
    slots, new, source, place = (
        ir.Value(name=name, type=ir.TensorType(ir.DataType(number)), shape=ir.Shape(axes))
        for name, (number, *axes) in rows.items()
    )
    op = OpBuilder("commit")
    result = op.ScatterND(slots, place, op.Gather(new, source))
    result.name, result.type, result.shape = NEXT, slots.type, slots.shape
    graph = ir.Graph(
        [slots, new, source, place],
        [result],
        nodes=op.nodes,
        opset_imports={"": OPSET},
        name="commit",
    )
    content: bytes = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString()
    return content


def main(folder: Path | None = None) -> None:
    """Write both, beside this file or into `folder`."""
    for dtype in FLOATS:
        shipped = graph_file(dtype)
        (folder or shipped.parent).joinpath(shipped.name).write_bytes(commit_graph(dtype))


if __name__ == "__main__":
    main()
