"""The one class of plugin, TensorRT's IPluginV3 in Python, and what creates it by an op's name.

Everything that is special to an op stands in its description. An engine keeps of a plugin its name,
version and namespace, and its attributes as fields; kernels are launched by whoever registered.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tightrope.interface.onnx import OWN_DOMAIN, OWN_OPSET
from tightrope.plugins.description import (
    GIVEN,
    LEADING,
    Attribute,
    Description,
    bound,
    element_of,
    given_rows,
)
from tightrope.plugins.expressions import combined
from tightrope.plugins.ops import ops
from tightrope.plugins.tensorrt.calls import Launcher, queue, workspace_bytes

ELEMENTS = {
    "float16": "HALF",
    "float32": "FLOAT",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
}
"""What TensorRT calls the element types of plugins' inputs and outputs."""
_SIGNS = {"+": "SUM", "-": "SUB", "*": "PROD", "//": "FLOOR_DIV"}


@functools.cache
def plugin_class(trt: Any) -> Any:
    """The class of this TensorRT's plugins; its constructor is that of `_OwnOp`."""
    bases = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)

    class OwnOp(_OwnOp, *bases):  # type: ignore[misc]
        def _begin(self) -> Any:
            for base in bases:
                base.__init__(self)
            return trt

    return OwnOp


class _OwnOp:
    """What a plugin answers; its base classes are those of a TensorRT."""

    def __init__(
        self, description: Description, fields: Mapping[str, Attribute], launcher: Launcher
    ) -> None:
        """fields: attributes that are not as the schema has them."""
        self.trt = self._begin()
        schema = description.schema
        self.plugin_name, self.plugin_version = schema.name, str(OWN_OPSET)
        self.plugin_namespace = OWN_DOMAIN
        self.num_outputs = len(schema.outputs)
        self.description, self.launcher = description, launcher
        self.fields = dict(fields)
        self.attributes = {**schema.attributes, **fields}
        rows = given_rows(schema, self.attributes.pop(GIVEN, None))  # type: ignore[arg-type]
        if rows is None:
            raise ValueError(f"{schema.name} has the inputs {fields[GIVEN]}")
        self.rows = rows
        self.held: list[Any] = []

    def _begin(self) -> Any:
        """Initialise the base classes; the module that they are of."""
        raise NotImplementedError

    def get_capability_interface(self, type: Any) -> Any:
        return self

    def clone(self) -> Any:
        return self.__class__(self.description, self.fields, self.launcher)

    # What is built.
    def get_output_data_types(self, input_types: Sequence[Any]) -> list[Any]:
        return [
            input_types[0] if row.dtype == "activation" else _type(self.trt, row.dtype)
            for row in self.description.schema.outputs
        ]

    def get_output_shapes(
        self, inputs: Sequence[Any], shape_inputs: Sequence[Any], exprBuilder: Any
    ) -> list[Any]:
        sizes, leading = bound(self.rows, [_lengths(axes) for axes in inputs])

        def combine(sign: str, a: Any, b: Any) -> Any:
            operation = getattr(self.trt.DimensionOperation, _SIGNS[sign])
            return exprBuilder.operation(operation, a, b)

        def axis_of(axis: str | int) -> list[Any]:
            if axis == LEADING:
                return leading
            return [combined(str(axis), sizes, exprBuilder.constant, combine)]

        return [
            self.trt.DimsExprs([length for axis in row.axes for length in axis_of(axis)])
            for row in self.description.schema.outputs
        ]

    def supports_format_combination(self, pos: int, in_out: Sequence[Any], num_inputs: int) -> bool:
        row, found = (*self.rows, *self.description.schema.outputs)[pos], in_out[pos].desc
        accepted = [
            _type(self.trt, element_of(row, activation)) for activation in self.description.types
        ]
        return bool(found.format == self.trt.TensorFormat.LINEAR and found.type in accepted)

    def configure_plugin(self, inp: Sequence[Any], out: Sequence[Any]) -> None:
        pass

    def get_workspace_size(self, input_desc: Sequence[Any], output_desc: Sequence[Any]) -> int:
        longest = [_lengths(each.max) for each in input_desc]
        return workspace_bytes(self.description, self.rows, self.attributes, longest)

    # What runs.
    def on_shape_change(self, inp: Sequence[Any], out: Sequence[Any]) -> None:
        pass

    def set_tactic(self, tactic: int) -> None:
        pass

    def attach_to_context(self, context: Any) -> Any:
        return self.clone()

    def get_fields_to_serialize(self) -> Any:
        # The collection holds addresses of the numbers, not the numbers.
        self.held = [_field(self.trt, name, value) for name, value in self.fields.items()]
        kept = self.trt.PluginFieldCollection([field for field, _ in self.held])
        self.held.append(kept)
        return kept

    def enqueue(
        self,
        input_desc: Sequence[Any],
        output_desc: Sequence[Any],
        inputs: Sequence[int],
        outputs: Sequence[int],
        workspace: int,
        stream: int,
    ) -> None:
        shapes = [_lengths(each.dims) for each in input_desc]
        pointers, target = (inputs, outputs, workspace), (self.launcher, stream)
        queue(self.description, self.rows, self.attributes, shapes, pointers, target)


@functools.cache
def creator_class(trt: Any) -> Any:
    """What makes a plugin from the fields of a node or of an engine."""

    class OwnOpCreator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self, description: Description) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            schema = description.schema
            self.name, self.plugin_version = schema.name, str(OWN_OPSET)
            self.plugin_namespace = OWN_DOMAIN
            self.description = description
            self.launcher: Launcher | None = None
            known: dict[str, Attribute] = {**schema.attributes}
            if schema.optional:
                known[GIVEN] = (1 << len(schema.inputs)) - 1
            self.held = [_field(trt, name, value) for name, value in known.items()]
            self.field_names = trt.PluginFieldCollection([field for field, _ in self.held])

        def create_plugin(self, name: str, fc: Any, phase: Any) -> Any:
            known, fields = {**self.description.schema.attributes, GIVEN: 0}, {}
            for field in fc:
                if field.name in known:
                    number = np.asarray(field.data).ravel()[0]
                    fields[field.name] = type(known[field.name])(number)
            assert self.launcher is not None, "creators are registered with a launcher"
            return plugin_class(trt)(self.description, fields, self.launcher)

    return OwnOpCreator


@functools.cache
def _creators(trt: Any) -> list[Any]:
    """The creators of all ops; TensorRT's registry holds them without owning them."""
    made, registry = creator_class(trt), trt.get_plugin_registry()
    creators = [made(description) for description in ops().values()]
    for creator in creators:
        registry.register_creator(creator, OWN_DOMAIN)
    return creators


def register(trt: Any, launcher: Launcher) -> None:
    """Have TensorRT find all own ops, before a graph is parsed or an engine read.

    A later launcher takes the place of the first one's.
    """
    for creator in _creators(trt):
        creator.launcher = launcher


def _lengths(dims: Any) -> list[Any]:
    """Of TensorRT's Dims or DimsExprs, which are no sequences of Python's."""
    return [dims[place] for place in range(len(dims))]


def _type(trt: Any, element: str) -> Any:
    return getattr(trt.DataType, ELEMENTS[element])


def _field(trt: Any, name: str, value: Attribute) -> tuple[Any, Any]:
    """A field and the array that it points to."""
    if isinstance(value, float):
        array, kind = np.array([value], np.float32), trt.PluginFieldType.FLOAT32
    else:
        array, kind = np.array([value], np.int32), trt.PluginFieldType.INT32
    return trt.PluginField(name, array, kind), array
