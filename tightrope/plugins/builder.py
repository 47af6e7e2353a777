"""Writes ONNX nodes as Python calls: `op.MatMul(a, b)` adds a node and returns its output.

The bodies of our ops and the selectors are written with it. Python decides at export what an
attribute decides (a window, a soft cap), so that a graph holds only the nodes that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

Operand = Any  # ir.Value, numpy array, numpy scalar or list of ints (an int64 constant)


class OpBuilder:
    """Collects nodes in order; constants are shared by value.

    scope: starts the name of every value. Branches see outer values, so that names must be
    unique across all graphs of a model; `inner` sees to that.
    """

    def __init__(self, scope: str = "body") -> None:
        self.scope = scope
        self.nodes: list[ir.Node] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if op_type.startswith("_"):
            raise AttributeError(op_type)

        def emit(*inputs: Operand, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
            node = ir.Node(
                domain,
                op_type,
                [None if value is None else self.value(value) for value in inputs],
                attributes=ir.convenience.convert_attributes(attributes),
                num_outputs=outputs,
            )
            self._add(node)
            return node.outputs[0] if outputs == 1 else tuple(node.outputs)

        return emit

    def _add(self, node: ir.Node) -> None:
        node.name = f"{self.scope}.{len(self.nodes)}"
        for place, value in enumerate(node.outputs):
            value.name = f"{node.name}.{place}"
        self.nodes.append(node)

    def inner(self, name: str) -> OpBuilder:
        """A builder for a subgraph of the next node."""
        return OpBuilder(f"{self.scope}.{len(self.nodes)}.{name}")

    def value(self, operand: Operand) -> ir.Value:
        """`operand` as a value of the graph; numbers and lists become constants."""
        if isinstance(operand, ir.Value):
            return operand
        if isinstance(operand, float):
            raise TypeError(f"{operand} has no element type; write np.float32({operand})")
        array = np.asarray(
            operand, dtype=None if isinstance(operand, np.generic | np.ndarray) else np.int64
        )
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            node = ir.Node(
                "", "Constant", [], attributes=[ir.AttrTensor("value", ir.Tensor(array))]
            )
            self._add(node)
            self._constants[key] = node.outputs[0]
        return self._constants[key]

    def dim(self, value: ir.Value, axis: int) -> ir.Value:
        """Length of one axis, int64 [1]; it stays a shape expression, never data."""
        return self.Shape(value, start=axis, end=axis + 1 if axis != -1 else None)

    def scalar_dim(self, value: ir.Value, axis: int) -> ir.Value:
        """Length of one axis, int64 []."""
        return self.Squeeze(self.dim(value, axis))

    def shape(self, *parts: ir.Value | int) -> ir.Value:
        """A shape, int64 [len(parts)], from fixed lengths and `dim` results."""
        if all(isinstance(part, int) for part in parts):
            return self.value(list(parts))
        return self.Concat(*[[part] if isinstance(part, int) else part for part in parts], axis=0)

    def iota(self, length: ir.Value) -> ir.Value:
        """0, 1, ... as int64 [length]; `length` is int64 []."""
        return self.Range(np.int64(0), length, np.int64(1))

    def stack(self, parts: Sequence[ir.Value]) -> ir.Value:
        """[L, ...] of L values of one shape."""
        shape = self.Concat([len(parts)], self.Shape(parts[0]), axis=0)
        return self.Reshape(self.Concat(*parts, axis=0), shape)

    def unstack(self, value: ir.Value, count: int) -> list[ir.Value]:
        """The `count` values [...] of a value [count, ...]."""
        return [self.Gather(value, np.int64(place), axis=0) for place in range(count)]

    def branch(
        self,
        condition: ir.Value,
        then: OpBuilder,
        then_outputs: Sequence[ir.Value],
        otherwise: OpBuilder,
        else_outputs: Sequence[ir.Value],
    ) -> tuple[ir.Value, ...]:
        """`If`: two bodies that read outer values, one set of outputs."""
        graphs = {
            "then_branch": _subgraph([], then, then_outputs, "then"),
            "else_branch": _subgraph([], otherwise, else_outputs, "else"),
        }
        node = ir.Node(
            "",
            "If",
            [condition],
            attributes=[ir.AttrGraph(name, graph) for name, graph in graphs.items()],
            num_outputs=len(then_outputs),
        )
        self._add(node)
        return tuple(node.outputs)

    def loop(
        self,
        trips: ir.Value,
        carried: Sequence[tuple[ir.Value, int]],
        body: Callable[[OpBuilder, ir.Value, Sequence[ir.Value]], Sequence[ir.Value]],
        stacked: int = 0,
    ) -> tuple[ir.Value, ...]:
        """`Loop` of `trips` rounds over carried values; `body` gets the round's number.

        trips: int64 []. Each carried value comes with its element type as ONNX numbers it.
        stacked: how many more values a round gives; those of all rounds come out as one
        [trips, ...] each.
        """
        inner = self.inner("loop")
        index = ir.Value(
            name=f"{inner.scope}.round", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([])
        )
        keep_on = ir.Value(
            name=f"{inner.scope}.on", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([])
        )
        state = [
            ir.Value(name=f"{inner.scope}.state{i}", type=ir.TensorType(ir.DataType(dtype)))
            for i, (_, dtype) in enumerate(carried)
        ]
        results = body(inner, index, state)
        still_on = inner.Identity(keep_on)
        graph = _subgraph([index, keep_on, *state], inner, [still_on, *results], "loop")
        node = ir.Node(
            "",
            "Loop",
            [trips, self.value(np.bool_(True)), *[value for value, _ in carried]],
            attributes=[ir.AttrGraph("body", graph)],
            num_outputs=len(carried) + stacked,
        )
        self._add(node)
        return tuple(node.outputs)


def _subgraph(
    inputs: Sequence[ir.Value], builder: OpBuilder, outputs: Sequence[ir.Value], name: str
) -> ir.Graph:
    return ir.Graph(inputs, outputs, nodes=builder.nodes, name=name)
