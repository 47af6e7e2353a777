"""Standard graphs against the operator lists of TensorRT's parsers; needs no TensorRT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from tightrope.errors import UnsupportedModel
from tightrope.interface.onnx import OWN_DOMAIN, STANDARD_DOMAINS
from tightrope.plugins.parsers import Parser, load_parser, parser_versions

_REASONS_SHOWN = 5
_OWN = f"{OWN_DOMAIN}::"


def operators_of(model: ir.Model) -> dict[str, str]:
    """Operator -> one node of that type, bodies of If and Loop and local functions included.

    An operator of another domain than ONNX's own is named domain::Operator.
    """
    found: dict[str, str] = {}
    for node in _nodes(model):
        found.setdefault(_operator(node), _label(node))
    return dict(sorted(found.items()))


def of_onnx(operators: Mapping[str, str]) -> dict[str, str]:
    """Those of `operators_of` that are none of our own."""
    return {kind: node for kind, node in operators.items() if not kind.startswith(_OWN)}


def own_of(operators: Mapping[str, str]) -> dict[str, str]:
    """Our own ones, by the names of the ops."""
    return {
        kind.removeprefix(_OWN): node for kind, node in operators.items() if kind.startswith(_OWN)
    }


def check_operators(name: str, model: ir.Model, own: bool = False) -> None:
    """Raise UnsupportedModel if graph `name` holds what a board's TensorRT refuses.

    Element types are compared where the graph states them. own: whether our own ops are plugins
    there, which no parser lists.
    """
    for version in parser_versions():
        if refused := refusals(model, load_parser(version), own):
            raise UnsupportedModel(
                f"graph {name} would not parse on TensorRT {version}: {listed(refused)}; express "
                "it with operators that the list has, or leave out what brought it in"
            )


def refusals(model: ir.Model, parser: Parser, own: bool = False) -> list[str]:
    """A sentence for each operator, attribute, input or element type that `parser` refuses.

    own: whether our own ops are plugins there.
    """
    operators = operators_of(model)
    return [
        *parser.refuse(of_onnx(operators) if own else operators),
        *(
            f"{node.op_type} (node {_label(node)}) {reason}"
            for node in _nodes(model)
            if node.domain in STANDARD_DOMAINS and node.op_type in parser.types
            for reason in _restrictions(node, parser, model.opset_imports.get("", 0))
        ),
    ]


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node, those of bodies inside nodes included."""
    for graph in (model.graph, *model.functions.values()):
        yield from ir.traversal.RecursiveGraphIterator(graph)


def _operator(node: ir.Node) -> str:
    if node.domain in STANDARD_DOMAINS:
        return str(node.op_type)
    return f"{node.domain}::{node.op_type}"


def _label(node: ir.Node) -> str:
    return str(node.name or f"that gives {node.outputs[0].name}")


def _restrictions(node: ir.Node, parser: Parser, opset: int) -> Iterator[str]:
    """What `parser` refuses of one node of an operator that it has."""
    operator = node.op_type
    version = f"TensorRT {parser.version}"
    if opset > parser.newest_opset.get(operator, opset):
        yield f"has opset {opset}, {version} reads it as of {parser.newest_opset[operator]}"
    for name, accepted in parser.attributes.get(operator, {}).items():
        if name in node.attributes and (value := _plain(node.attributes[name])) not in accepted:
            yield f"has {name} = {value!r}, {version} accepts {_words(accepted)}"
    for place in parser.constant_inputs.get(operator, ()):
        if place < len(node.inputs) and not _is_constant(node.inputs[place]):
            yield f"computes its input {place}, for {version} it must be a constant"
    given = [place for place, value in enumerate(node.inputs) if value is not None]
    if given and max(given) >= parser.inputs.get(operator, len(node.inputs)):
        yield f"hands over input {max(given)}, which {version} ignores"
    used = [i for i, output in enumerate(node.outputs) if output.uses() or output.is_graph_output()]
    if used and max(used) >= parser.outputs.get(operator, len(node.outputs)):
        yield f"uses output {max(used)}, which {version} does not give"
    counted = [
        node.inputs[i] for i in parser.type_inputs.get(operator, (0,)) if i < len(node.inputs)
    ]
    for dtype in sorted({dtype for value in counted if (dtype := _element_type(value))}):
        if dtype not in (accepted := parser.types[operator]):
            yield f"computes on {dtype}, {version} accepts {_words(accepted)}"


def _plain(attribute: ir.Attr) -> Any:
    return list(attribute.value) if isinstance(attribute.value, tuple | list) else attribute.value


def _is_constant(value: ir.Value | None) -> bool:
    if value is None or value.const_value is not None:
        return True
    producer = value.producer()
    return producer is not None and producer.op_type == "Constant"


def _element_type(value: ir.Value | None) -> str | None:
    """Element type as the lists spell it, None where the graph does not state it."""
    if value is None:
        return None
    dtype = value.dtype
    if dtype is None and value.const_value is not None:
        dtype = value.const_value.dtype
    producer = value.producer()
    if dtype is None and producer is not None and producer.op_type == "Constant":
        tensor = producer.attributes.get("value")
        dtype = tensor.value.dtype if tensor is not None else None
    if dtype is None:
        return None
    name = str(dtype.name).lower()
    if name.startswith("float8"):
        return "fp8"
    return {"float": "float32", "float4e2m1": "fp4"}.get(name, name)


def _words(values: Iterable[Any]) -> str:
    return " or ".join(str(value) for value in values)


def listed(reasons: Sequence[str]) -> str:
    """The first few of some reasons, and how many more there are."""
    more = len(reasons) - _REASONS_SHOWN
    return "; ".join(reasons[:_REASONS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
