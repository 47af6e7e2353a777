"""How an op becomes a plugin of TensorRT, as data: what it takes, what it launches, in which order.

One class serves every op from it (`plugins/tensorrt/`); a graph holds the op as a node with three
attributes more, which say where its plugin is found.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from tightrope.arrays import Array
from tightrope.interface.onnx import ITEM_BYTES
from tightrope.interface.tensors import Rows, TensorSpec
from tightrope.plugins.cases import Case, Cases
from tightrope.plugins.expressions import evaluate
from tightrope.plugins.schema import OpSchema

T = TypeVar("T")
Attribute = float | int | str
Reference = Callable[..., tuple[Array, ...]]
"""Called with an array for each input, None for one that is left out, and the attributes."""

NAMESPACE, VERSION = "plugin_namespace", "plugin_version"
"""Attributes of a node that TensorRT looks its plugin up by; without them 10.3 finds none."""
GIVEN = "given"
"""Attribute of a node that has optional inputs: a bit for each of the schema's inputs that it has.

One number: the bindings of TensorRT 10.3 and 10.13 give the first number of a field for all of it.
"""
LEADING, ROWS = "...", "rows"
"""Axes of any number in front of others, and how many rows they make."""
_PREFIX = "next_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What kernels take of one size: from `least` to `most`, in whole multiples."""

    what: str
    """As people call it: head_dim."""
    size: str
    """An expression over the op's axes and attributes."""
    least: int
    most: int
    multiple: int = 1

    def refuses(self, sizes: Mapping[str, int]) -> str:
        """What is wrong with the sizes of a node; empty if nothing."""
        found = evaluate(self.size, sizes)
        if self.least <= found <= self.most and found % self.multiple == 0:
            return ""
        by = "" if self.multiple == 1 else f", in multiples of {self.multiple}"
        return f"{self.what} is {found}, its kernels take {self.least} to {self.most}{by}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """Memory that kernels of one call hand to each other."""

    name: str
    nbytes: str
    """An expression over the op's sizes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One kernel of an op's call.

    What it is launched with is looked up by the names that its description gives arguments and
    grid: inputs and buffers as they are called, outputs with `next_` in front where an input has
    their name, attributes, axes, `sizes`.
    """

    kernel: str
    """Its name, in which {D} stands for the size D that it was compiled for."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Names that the kernel alone has -> what they are, an expression if it is no tensor."""
    only: tuple[str, int, int] | None = None
    """A size, and from where to where it has to lie for this step to run; None: always."""
    given: str = ""
    """An optional input that a call has to have for this step to run; empty: any call may."""
    lacking: str = ""
    """One that it must not have."""

    def serves(self, names: Container[str]) -> bool:
        """Whether it serves calls that have the inputs of these names."""
        return (not self.given or self.given in names) and self.lacking not in names

    def runs(self, sizes: Mapping[str, int]) -> bool:
        """Whether it is part of a call of these sizes that it serves."""
        if self.only is None:
            return True
        size, least, most = self.only
        return least <= sizes[size] <= most


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One body of an op in standard operators."""

    name: str
    emit: Callable[..., Any]
    """With an OpBuilder, the inputs' values (None: left out) and a case, the outputs' values."""
    takes: Callable[[Case], bool] = lambda _: True
    """Whether it serves such a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One op as a plugin."""

    schema: OpSchema
    reference: Reference
    cases: Cases
    forms: tuple[Form, ...]
    limits: tuple[Limit, ...]
    steps: tuple[Step, ...]
    types: tuple[str, ...] = ("float16",)
    """Of "activation" that kernels compute with."""
    sizes: Mapping[str, str] = field(default_factory=dict)
    """Further sizes as expressions, each of those before it."""
    buffers: tuple[Buffer, ...] = ()

    def refusals(self, sizes: Mapping[str, int], activation: str | None) -> Iterator[str]:
        """What kernels do not take of a node with these fixed sizes and attributes.

        activation: the element type that it computes in, None where it has types of its own.
        """
        if activation is not None and activation not in self.types:
            yield f"it computes in {activation}, its kernels in {' or '.join(self.types)}"
        for limit in self.limits:
            if complaint := limit.refuses(sizes):
                yield complaint

    def kernels(self, rows: Rows, sizes: Mapping[str, int]) -> tuple[str, ...]:
        """Names of all kernels that a node may launch.

        rows: the inputs that it has. sizes: those that are fixed, and its attributes.
        """
        names = {row.name for row in rows}
        return tuple(x.kernel.format_map(sizes) for x in self.steps if x.serves(names))

    def all_sizes(
        self, rows: Rows, shapes: Sequence[Sequence[int]], attributes: Mapping[str, Any]
    ) -> dict[str, int]:
        """Every size of a call, by name; whole numbers among the attributes are sizes too."""
        axes, leading = bound(rows, shapes)
        sizes = {**axes, **{k: v for k, v in attributes.items() if isinstance(v, int)}}
        count = 1
        for length in leading:
            count *= length
        sizes[ROWS] = count
        for name, expression in self.sizes.items():
            sizes[name] = evaluate(expression, sizes)
        return sizes

    def workspace(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Offset and bytes of each buffer, one behind the other."""
        places, end = {}, 0
        for buffer in self.buffers:
            size = evaluate(buffer.nbytes, sizes)
            places[buffer.name] = (end, size)
            end += -(-size // _ALIGNED) * _ALIGNED
        return places


_ALIGNED = 256
"""Bytes that a buffer's start is a multiple of."""


def given_rows(schema: OpSchema, given: int | None) -> Rows | None:
    """The inputs that a node has by its `GIVEN`; None for bits that no node of the op can have."""
    if given is None:
        return schema.required
    if not 0 <= given < 1 << len(schema.inputs):
        return None
    rows = tuple(row for place, row in enumerate(schema.inputs) if given >> place & 1)
    names = {row.name for row in rows}
    if not {row.name for row in schema.required} <= names:
        return None
    scales = set(schema.scaled.values())
    return _as_given(schema, rows) if not scales & names or scales <= names else None


def rows_of(schema: OpSchema, inputs: Sequence[object | None]) -> Rows:
    """The inputs that a call has, None standing for those that it leaves out."""
    rows = zip(schema.inputs, inputs, strict=True)
    return _as_given(schema, tuple(row for row, each in rows if each is not None))


def _as_given(schema: OpSchema, rows: Rows) -> Rows:
    """`rows`, those in int8 whose scales are among them."""
    names = {row.name for row in rows}
    return tuple(
        replace(row, dtype="int8") if schema.scaled.get(row.name) in names else row for row in rows
    )


def bound(rows: Rows, shapes: Sequence[Sequence[T]]) -> tuple[dict[str, T], list[T]]:
    """The length of each axis by name, and those of the axes in front, where a row has any number.

    Codes of four bits lie two in a byte: they tell no length.
    """
    sizes: dict[str, T] = {}
    leading: list[T] = []
    for row, shape in zip(rows, shapes, strict=True):
        axes = row.axes
        if row.dtype == "int4":
            continue
        if axes[0] == LEADING:
            ahead = len(shape) - len(axes) + 1
            leading, shape, axes = list(shape[:ahead]), shape[ahead:], axes[1:]
        for axis, length in zip(axes, shape, strict=True):
            if isinstance(axis, str) and axis.isidentifier():
                sizes.setdefault(axis, length)
    return sizes, leading


def element_of(row: TensorSpec, activation: str) -> str:
    """Element type of an input or output as a plugin has it: codes of four bits are bytes."""
    return {"activation": activation, "int4": "int8"}.get(row.dtype, row.dtype)


def pointer_names(schema: OpSchema, rows: Rows) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What kernels call the inputs `rows` and the outputs."""
    inputs = tuple(row.name for row in rows)
    taken = {row.name for row in schema.inputs}
    outputs = tuple(
        f"{_PREFIX}{row.name}" if row.name in taken else row.name for row in schema.outputs
    )
    return inputs, outputs


def item_bytes(row: TensorSpec, activation: str) -> int:
    """Bytes of one element of an input or output as a plugin has it."""
    return ITEM_BYTES[element_of(row, activation)]
