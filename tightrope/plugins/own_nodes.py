"""The nodes of our own ops in an ONNX file, read without the onnx package and held to the schemas.

Read of the protobuf: ModelProto.graph (7) and opset_import (8: domain 1, version 2);
GraphProto.node (1); NodeProto.input (1), output (2), name (3), op_type (4), attribute (5) and
domain (7); AttributeProto.name (1), f (2), i (3) and s (4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tightrope.errors import BackendError
from tightrope.foreign import translated
from tightrope.interface.onnx import OWN_DOMAIN, OWN_OPSET
from tightrope.plugins.description import GIVEN, NAMESPACE, VERSION, Attribute, given_rows
from tightrope.plugins.ops import ops
from tightrope.plugins.protobuf import fields, float_of, parts, signed, text

_GRAPH, _IMPORT = 7, 8
_IMPORT_DOMAIN, _IMPORT_VERSION = 1, 2
_NODE = 1
_INPUT, _OUTPUT, _NAME, _OP_TYPE, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7
_ATTRIBUTE_NAME, _FLOAT, _INT, _TEXT = 1, 2, 3, 4
_EXPORT_AGAIN = "export the checkpoint again, or use the tightrope that wrote it"


@dataclass(frozen=True, slots=True)
class OwnNode:
    """A node of one of our ops."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


def read_own_nodes(model: bytes, what: str) -> list[OwnNode]:
    """The own nodes of a serialised model, each as its schema says.

    what: the file, for messages. Raises BackendError naming the node that is of another op set, of
    an op that there is none of, or that has other inputs, outputs or attributes.
    """
    with translated(BackendError, f"{what} is damaged", "inspect --verify checks the bundle"):
        message = memoryview(model)
        versions = [
            signed(number)
            for entry in parts(message, _IMPORT)
            if text(entry, _IMPORT_DOMAIN) == OWN_DOMAIN
            for field, number in fields(entry)
            if field == _IMPORT_VERSION
        ]
        nodes = [node for graph in parts(message, _GRAPH) for node in _own(graph)]
    for version in versions:
        if version != OWN_OPSET:
            raise BackendError(
                f"{what} is of op set {version}, this reader knows {OWN_OPSET}; {_EXPORT_AGAIN}"
            )
    for node in nodes:
        if complaint := _complaint(node):
            raise BackendError(f"{what}: {node.op} (node {node.name}) {complaint}; {_EXPORT_AGAIN}")
    return nodes


def _own(graph: memoryview) -> Iterator[OwnNode]:
    for node in parts(graph, _NODE):
        if text(node, _DOMAIN) == OWN_DOMAIN:
            yield OwnNode(
                text(node, _OP_TYPE),
                text(node, _NAME),
                tuple(bytes(part).decode() for part in parts(node, _INPUT)),
                tuple(bytes(part).decode() for part in parts(node, _OUTPUT)),
                {
                    text(attribute, _ATTRIBUTE_NAME): _value(attribute)
                    for attribute in parts(node, _ATTRIBUTE)
                },
            )


def _value(attribute: memoryview) -> Attribute:
    for field, value in fields(attribute):
        if field == _FLOAT:
            return float_of(value)
        if field == _INT:
            return signed(value)
        if field == _TEXT and isinstance(value, memoryview):
            return bytes(value).decode()
    return ""


def _complaint(node: OwnNode) -> str:
    """What of a node is not as its op's schema says; empty if nothing."""
    if node.op not in (known := ops()):
        return f"is none of our ops ({', '.join(known)})"
    schema, attributes = known[node.op].schema, dict(node.attributes)
    namespace, version = attributes.pop(NAMESPACE, None), attributes.pop(VERSION, None)
    if namespace != OWN_DOMAIN:
        return f"has the plugin namespace {namespace!r}, not {OWN_DOMAIN!r}"
    if version != str(OWN_OPSET):
        return f"asks for op set {version}, this reader knows {OWN_OPSET}"
    given = attributes.pop(GIVEN, None)
    for name, value in attributes.items():
        default = schema.attributes.get(name)
        if default is None:
            return f"has the attribute {name}, which the op does not know"
        if type(value) is not type(default):
            return f"has {name} = {value!r}, a number of another kind than {default!r}"
    rows = given_rows(schema, given) if given is None or isinstance(given, int) else None
    if rows is None:
        return f"has {GIVEN} = {given!r}, inputs that the op does not know"
    if len(rows) != len(node.inputs) or not all(node.inputs):
        return f"has {sum(map(bool, node.inputs))} inputs, the op {len(rows)}"
    if len(schema.outputs) != len(node.outputs):
        return f"has {len(node.outputs)} outputs, the op {len(schema.outputs)}"
    return ""
