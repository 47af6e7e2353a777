"""Weights of linear layers, stored the way that a matrix product reads them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from tightrope.export.coded import Form
from tightrope.export.graphs.passes.replace import replace_value
from tightrope.interface.onnx import OWN_DOMAIN
from tightrope.plugins import int4_matmul

PARAMETER, LAYOUT, PART = "parameter", "layout", "part"
OF_CODES = ("codes", "scale", "zero", "shift", "order")
"""Layouts of a matrix in codes."""
FUSED = OF_CODES[:3]
"""Those that ONNX Runtime fuses with a product."""
BY_COLUMNS = ("transposed", *OF_CODES[:4])
"""Layouts that are stored in parts where a matrix has too many columns for one product."""
MOST_COLUMNS = 1 << 15
"""Of a product's matrix: more are cut into parts of about one width."""
_ALIGNED = 64


def column_parts(columns: int) -> list[slice]:
    """Which columns each product with a matrix of so many has."""
    count = -(-columns // MOST_COLUMNS)
    width = -(-columns // (count * _ALIGNED)) * _ALIGNED
    return [slice(first, min(first + width, columns)) for first in range(0, columns, width)]


def store_transposed(model: ir.Model) -> None:
    """`MatMul(x, Transpose(W))` reads W^T [K,N] straight from the weight file."""
    for node in list(model.graph):
        if node.op_type != "Transpose" or node.inputs[0] is None:
            continue
        weight = node.inputs[0]
        permutation = node.attributes["perm"].as_ints() if "perm" in node.attributes else ()
        if not weight.is_initializer() or tuple(permutation) != (1, 0):
            continue
        assert weight.shape is not None and weight.name is not None
        shape = [weight.shape[1], weight.shape[0]]
        stored = stored_as(model, weight.name, "transposed", weight.dtype, shape)
        ir.convenience.replace_all_uses_with(node.outputs[0], stored)
        model.graph.remove(node, safe=True)


def to_codes(model: ir.Model, form_of: Callable[[str], Form | None], host: bool) -> None:
    """Products with a weight that is stored in codes become Int4MatMul.

    form_of: how an initializer's parameter is stored, None for floats. host: ONNX Runtime, whose
    products take zeros and eight bits; TensorRT 10.3 has no product for eight bits by blocks.
    """
    for node in list(model.graph):
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or weight.metadata_props.get(LAYOUT) != "transposed":
            continue
        parameter = weight.metadata_props[PARAMETER]
        form = form_of(parameter)
        if form is None or (form.bits == 8 and not host):
            continue
        assert weight.shape is not None
        rows, columns, part = int(weight.shape[0]), int(weight.shape[1]), part_of(weight)
        codes = ir.DataType.INT4 if form.bits == 4 else ir.DataType.INT8
        blocks, zero = rows // form.block_size, form.zero and host
        parts = [
            stored_as(model, parameter, layout, dtype, shape, part) if wanted else None
            for layout, dtype, shape, wanted in (
                ("codes", codes, [rows, columns], True),
                ("scale", weight.dtype, [blocks, columns], True),
                ("zero", codes, [blocks, columns], zero),
                ("shift", weight.dtype, [blocks, columns], form.shift or form.zero != zero),
                ("order", ir.DataType.INT64, [rows], form.order),
            )
        ]
        product = ir.Node(
            OWN_DOMAIN,
            int4_matmul.SCHEMA.name,
            [node.inputs[0], *parts],
            attributes=[ir.AttrInt64("block_size", form.block_size)],
        )
        model.graph.insert_before(node, product)
        replace_value(node.outputs[0], product.outputs[0])
        model.graph.remove(node, safe=True)


def stored_as(
    model: ir.Model,
    parameter: str,
    layout: str,
    dtype: ir.DataType | None,
    shape: list[int],
    part: int | None = None,
) -> ir.Value:
    """The initializer of a parameter in one layout; equal ones are one.

    part: which of `column_parts` it has, in a layout by columns; None for all of them.
    """
    part = part if layout in BY_COLUMNS else None
    name = f"{parameter}.{layout}" if part is None else f"{parameter}.{layout}.{part}"
    if name not in model.graph.initializers:
        assert dtype is not None
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        value.metadata_props[PARAMETER] = parameter
        value.metadata_props[LAYOUT] = layout
        if part is not None:
            value.metadata_props[PART] = str(part)
        model.graph.initializers.add(value)
    return model.graph.initializers[name]


def part_of(value: ir.Value) -> int | None:
    """Which of its parameter's `column_parts` an initializer has; None: all columns."""
    part = value.metadata_props.get(PART)
    return None if part is None else int(part)


def matrix_in_int8(
    model: ir.Model, parameter: str, layouts: tuple[str, str], inputs: int, outputs: int
) -> tuple[ir.Value, ir.Value]:
    """A matrix in one scale an output: int8 codes [inputs,outputs], and float32 scales [outputs].

    layouts: of the codes and of the scales.
    """
    codes, scales = layouts
    return (
        stored_as(model, parameter, codes, ir.DataType.INT8, [inputs, outputs]),
        stored_as(model, parameter, scales, ir.DataType.FLOAT, [outputs]),
    )
