"""Own ops that stay: nodes that TensorRT finds a plugin for, without a body.

TensorRT 10.3 looks for the namespace in an attribute alone, and where a node has a function's body
some releases take that one; so every node says its namespace and version, and bodies are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir

from tightrope.interface.onnx import OWN_DOMAIN, OWN_OPSET
from tightrope.interface.tensors import Rows
from tightrope.plugins import int4_matmul
from tightrope.plugins.description import (
    GIVEN,
    NAMESPACE,
    VERSION,
    Attribute,
    Description,
    bound,
    given_rows,
)
from tightrope.plugins.ops import ops


def own_nodes(model: ir.Model) -> Iterator[tuple[ir.Node, Description]]:
    """The own nodes of a traced graph, each with how it becomes a plugin."""
    for node in model.graph:
        if node.domain == OWN_DOMAIN:
            yield node, ops()[node.op_type]


def refused_by_kernels(model: ir.Model) -> list[str]:
    """What kernels do not take of the own nodes of a traced graph, one sentence each kind."""
    said: dict[str, None] = {}
    for node, description in own_nodes(model):
        activation = _activation(node, description)
        for complaint in description.refusals(_fixed_sizes(node, description), activation):
            said[f"{node.op_type}: {complaint}"] = None
    return list(said)


def kernels_of(model: ir.Model) -> tuple[str, ...]:
    """Names of the kernels that the own nodes of a traced graph launch, each once."""
    names: dict[str, None] = {}
    for node, description in own_nodes(model):
        rows = _rows(node, description)
        names |= dict.fromkeys(description.kernels(rows, _fixed_sizes(node, description)))
    return tuple(names)


def keep_own(model: ir.Model) -> None:
    """Make every own node one that a parser finds a plugin for."""
    for node, description in list(own_nodes(model)):
        if node.op_type == int4_matmul.SCHEMA.name:
            _order_outside(model, node)
        schema = description.schema
        places = [place for place, value in enumerate(node.inputs) if value is not None]
        required = [place for place, row in enumerate(schema.inputs) if row in schema.required]
        attributes: dict[str, Attribute] = {
            **{name: _value(node, name, default) for name, default in schema.attributes.items()},
            NAMESPACE: OWN_DOMAIN,
            VERSION: str(OWN_OPSET),
        }
        if places != required:
            attributes[GIVEN] = sum(1 << place for place in places)
        # Parsers stumble over an input without a name.
        kept = ir.Node(
            OWN_DOMAIN,
            node.op_type,
            [node.inputs[place] for place in places],
            attributes=ir.convenience.convert_attributes(attributes),
            num_outputs=len(node.outputs),
            name=node.name,
        )
        model.graph.insert_before(node, kept)
        for old, new in zip(node.outputs, kept.outputs, strict=True):
            name = old.name
            new.type, new.shape = old.type, old.shape
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            old.name, new.name = f"{name}.replaced", name
        model.graph.remove(node, safe=True)


def codes_as_bytes(model: ir.Model) -> None:
    """Four-bit codes [K,N] become bytes [K,N/2] of the same place: plugins take no int4.

    Call when weights are bound.
    """
    done: set[ir.Value] = set()
    for node, description in own_nodes(model):
        for row, value in zip(_rows(node, description), node.inputs, strict=True):
            if row.dtype != "int4" or value is None or value in done:
                continue
            stored = value.const_value
            assert isinstance(stored, ir.ExternalTensor), "weights are bound"
            rows, columns = (int(length) for length in stored.shape)
            value.const_value = ir.ExternalTensor(
                stored.location,
                stored.offset,
                stored.length,
                ir.DataType.INT8,
                shape=ir.Shape([rows, columns // 2]),
                name=str(value.name),
                base_dir=stored.base_dir,
            )
            value.type, value.shape = ir.TensorType(ir.DataType.INT8), value.const_value.shape
            done.add(value)


def _order_outside(model: ir.Model, node: ir.Node) -> None:
    """A product whose weight has its inputs in another order reads them gathered."""
    place = [row.name for row in int4_matmul.SCHEMA.inputs].index("order")
    order = node.inputs[place] if len(node.inputs) > place else None
    if order is None:
        return
    x = node.inputs[0]
    assert x is not None
    gather = ir.Node("", "Gather", [x, order], attributes=[ir.AttrInt64("axis", -1)])
    gather.outputs[0].type, gather.outputs[0].shape = x.type, x.shape
    model.graph.insert_before(node, gather)
    node.replace_input_with(0, gather.outputs[0])
    node.replace_input_with(place, None)


def _rows(node: ir.Node, description: Description) -> Rows:
    """The schema's rows of the inputs that a node has, in a trace or as a plugin."""
    schema = description.schema
    if GIVEN in node.attributes:
        return given_rows(schema, node.attributes[GIVEN].as_int()) or ()
    return schema.inputs[: len(node.inputs)]


def _activation(node: ir.Node, description: Description) -> str | None:
    """Element type that a node computes in; None where its op has types of its own."""
    for row, value in zip(_rows(node, description), node.inputs, strict=True):
        if row.dtype == "activation" and value is not None and value.dtype is not None:
            return str(value.dtype.numpy().name)
    return None


def _fixed_sizes(node: ir.Node, description: Description) -> dict[str, int]:
    """Whole numbers among a node's attributes and the lengths that its inputs state."""
    rows, shapes = [], []
    for row, value in zip(_rows(node, description), node.inputs, strict=True):
        if value is not None and value.shape is not None:
            rows.append(row)
            shapes.append(list(value.shape))
    axes: Mapping[str, Any] = bound(tuple(rows), shapes)[0]
    sizes = {name: length for name, length in axes.items() if isinstance(length, int)}
    for name, default in description.schema.attributes.items():
        if isinstance(value := _value(node, name, default), int):
            sizes[name] = value
    return sizes


def _value(node: ir.Node, name: str, default: float | int) -> float | int:
    if name not in node.attributes:
        return default
    given: float | int = node.attributes[name].value
    return type(default)(given)
