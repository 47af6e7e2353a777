"""What a chat template looks for in the texts that it is given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from jinja2 import nodes

_METHODS = frozenset(
    [
        *("split", "rsplit", "partition", "rpartition", "replace", "removeprefix", "removesuffix"),
        *("startswith", "endswith", "find", "rfind", "index", "rindex", "count"),
    ]
)


def looked_for(tree: nodes.Template) -> frozenset[str]:
    """Strings of a template that it searches texts for: `'a' in text`, `text.split('a')`."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for target, value in _assigned(tree):
        if isinstance(target, nodes.Name):
            names[target.name] |= _strings(value, names)
    return frozenset().union(*(_strings(node, names) for node in _searched(tree)))


def _assigned(tree: nodes.Template) -> Iterator[tuple[nodes.Node, nodes.Node]]:
    for assignment in tree.find_all(nodes.Assign):
        yield assignment.target, assignment.node
    for loop in tree.find_all(nodes.For):
        yield loop.target, loop.iter


def _searched(tree: nodes.Template) -> Iterator[nodes.Node]:
    """The expressions that texts are searched for."""
    for comparison in tree.find_all(nodes.Compare):
        if any(operand.op in ("in", "notin") for operand in comparison.ops):
            yield comparison.expr
    for test in tree.find_all(nodes.Test):
        if test.name == "in":
            yield test.node
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr in _METHODS:
            yield from call.args
    for filtered in tree.find_all(nodes.Filter):
        if filtered.name == "replace":
            yield from filtered.args


def _strings(node: nodes.Node, names: dict[str, set[str]]) -> set[str]:
    """The strings that an expression may be, as far as the source says it."""
    if isinstance(node, nodes.Const):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, nodes.Name):
        return names.get(node.name, set())
    if isinstance(node, (nodes.List, nodes.Tuple)):
        return set().union(*(_strings(item, names) for item in node.items))
    return set()
