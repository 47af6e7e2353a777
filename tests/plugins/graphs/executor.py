"""Runs a graph with own ops on a CPU: each own op by its reference, all else by ONNX Runtime.

The graph is cut at its own nodes. A piece is what can be computed once so many rows of own nodes
are done; it becomes a session when it is first reached and its inputs' types are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from tightrope.plugins.description import GIVEN, given_rows
from tightrope.plugins.ops import ops
from tightrope.plugins.own_nodes import OwnNode, read_own_nodes

Arrays = dict[str, npt.NDArray[Any]]


class Executor:
    """One graph file of a bundle."""

    def __init__(self, file: Path) -> None:
        self._own = {node.outputs[0]: node for node in read_own_nodes(file.read_bytes(), file.name)}
        self.called: list[str] = []
        """Own ops in the order of their calls."""
        self._folder = file.parent
        model = onnx.load(str(file), load_external_data=False)
        self._model, graph = model, model.graph
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        half = onnx.TensorProto.FLOAT16
        self.halves = {
            value.name for value in graph.input if value.type.tensor_type.elem_type == half
        }
        """Inputs in float16."""
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                tensor = onnx.TensorProto()
                tensor.CopyFrom(node.attribute[0].t)
                tensor.name = node.output[0]
                self._constants[tensor.name] = tensor
        depth = dict.fromkeys([*self.inputs, *self._constants, ""], 0)
        self._pieces: dict[int, list[Any]] = {}
        self._calls: dict[int, list[OwnNode]] = {}
        for node in graph.node:
            if node.output[0] in self._constants:
                continue
            level = max((depth[name] for name in node.input), default=0)
            if own := self._own.get(node.output[0]):
                self._calls.setdefault(level, []).append(own)
                level += 1
            else:
                self._pieces.setdefault(level, []).append(node)
            depth |= dict.fromkeys(node.output, level)
        self._sessions: dict[int, Any] = {}
        self._weights: Arrays = {}

    def run(self, feeds: Mapping[str, Any]) -> Arrays:
        """Outputs by name; of `feeds` the graph reads what it knows."""
        values: Arrays = {name: np.asarray(feeds[name]) for name in self.inputs}
        for level in range(max([*self._pieces, *self._calls]) + 1):
            if level in self._pieces:
                values |= self._computed(level, values)
            for node in self._calls.get(level, ()):
                values |= self._called(node, values)
        return {name: values[name] for name in self.outputs}

    def _called(self, node: OwnNode, values: Arrays) -> Arrays:
        description, attributes = ops()[node.op], dict(node.attributes)
        schema = description.schema
        rows = given_rows(schema, attributes.pop(GIVEN, None))  # type: ignore[arg-type]
        assert rows is not None
        given = dict(zip((row.name for row in rows), node.inputs, strict=True))
        inputs = [
            self._value(given[row.name], values) if row.name in given else None
            for row in schema.inputs
        ]
        kept = {name: attributes[name] for name in schema.attributes}
        self.called.append(node.op)
        return dict(zip(node.outputs, description.reference(*inputs, **kept), strict=True))

    def _value(self, name: str, values: Arrays) -> Any:
        if name in values:
            return values[name]
        if name not in self._weights:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(self._constants[name])
            if onnx.external_data_helper.uses_external_data(tensor):
                folder = str(self._folder)
                onnx.external_data_helper.load_external_data_for_tensor(tensor, folder)
            self._weights[name] = onnx.numpy_helper.to_array(tensor)
        return self._weights[name]

    def _computed(self, level: int, values: Arrays) -> Arrays:
        if level not in self._sessions:
            self._sessions[level] = self._session(level, values)
        session = self._sessions[level]
        names = [item.name for item in session.get_outputs()]
        feeds = {item.name: values[item.name] for item in session.get_inputs()}
        return dict(zip(names, session.run(names, feeds), strict=True))

    def _session(self, level: int, values: Arrays) -> Any:
        nodes = self._pieces[level]
        made = {name for node in nodes for name in node.output}
        read = {name for node in nodes for name in node.input if name} - made
        later = {
            name
            for others in (self._pieces, self._calls)
            for at, group in others.items()
            for node in group
            if at > level or others is self._calls
            for name in (node.inputs if isinstance(node, OwnNode) else node.input)
        }
        shown = [name for name in dict.fromkeys([*later, *self.outputs]) if name in made]
        kind = onnx.helper.np_dtype_to_tensor_dtype
        graph = onnx.helper.make_graph(
            nodes,
            f"piece{level}",
            [
                onnx.helper.make_tensor_value_info(name, kind(values[name].dtype), None)
                for name in sorted(read - set(self._constants))
            ],
            [onnx.ValueInfoProto(name=name) for name in shown],
            [self._constants[name] for name in sorted(read & set(self._constants))],
        )
        imports = [entry for entry in self._model.opset_import if entry.domain == ""]
        piece = onnx.helper.make_model(
            graph, opset_imports=imports, ir_version=self._model.ir_version
        )
        onnx.external_data_helper.load_external_data_for_model(piece, str(self._folder))
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        providers = ["CPUExecutionProvider"]
        return onnxruntime.InferenceSession(piece.SerializeToString(), options, providers=providers)
