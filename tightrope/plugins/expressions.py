"""Expressions over lengths, such as `S-V+K`: names, whole numbers, `+ - * //` and brackets.

They are read by whoever needs them: in whole numbers here, in a builder's expressions in TensorRT,
in another language by a program of its own.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

_SIGNS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
}
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
}


def combined(
    expression: str,
    sizes: Mapping[str, T],
    number: Callable[[int], T],
    combine: Callable[[str, T, T], T],
) -> T:
    """The value of an expression; ValueError for what is none, KeyError for an unknown name.

    number: a whole number as such a value. combine: two of them by one of the four signs.
    """

    def value(node: ast.expr) -> T:
        if isinstance(node, ast.Name):
            return sizes[node.id]
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return number(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
            return combine(_SIGNS[type(node.op)], value(node.left), value(node.right))
        raise ValueError(f"{expression!r} is no expression of lengths")

    return value(ast.parse(expression, mode="eval").body)


def evaluate(expression: str, sizes: Mapping[str, int]) -> int:
    """The same in whole numbers."""
    return combined(expression, sizes, int, lambda sign, a, b: _OPERATIONS[sign](a, b))
