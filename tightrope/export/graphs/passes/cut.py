"""Slices become outputs of Splits, for TensorRT's parser.

Where a Slice starts and ends it has worked out while the graph runs, by some forty layers, even if
all of it is constant. Of an output of a Split it makes seven.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from tightrope.export.graphs.passes.replace import replace_value
from tightrope.plugins.builder import OpBuilder

_NO_END = 2**31 - 1
"""Exporters end a Slice here, or beyond, that takes all there is."""


class _Cut(NamedTuple):
    """A place along an axis where a value falls in two."""

    source: ir.Value
    axis: int
    place: int | ir.Value
    """int64 [1] where it is a value"""


_Sides = dict[Literal[0, 1], ir.Node]
"""The Slices that take what lies before the place (0) and behind it (1)."""


def cut_by_splits(model: ir.Model) -> None:
    """Every Slice along one axis from its start, or to its end, becomes an output of a Split.

    A Slice may reach beyond its value, or count from its end, and a Split may not: those stay whose
    place is a constant that is not known to lie inside, or is computed and no length.
    """
    cuts: dict[_Cut, _Sides] = {}
    for node in model.graph:
        if (found := _cut(node)) is not None:
            cut, side = found
            cuts.setdefault(cut, {}).setdefault(side, node)
    for number, (cut, sides) in enumerate(cuts.items()):
        op, first = OpBuilder(f"cut.{number}"), next(iter(sides.values()))  # in the graph's order
        source = first.inputs[0]  # a Slice itself, it is a Split's output by now
        assert source is not None
        if (lengths := _lengths(op, cut._replace(source=source), sides)) is None:
            continue
        parts = op.Split(source, lengths, axis=cut.axis, outputs=2)
        model.graph.insert_before(first, op.nodes)
        for side, node in sides.items():
            replace_value(node.outputs[0], parts[side])
            model.graph.remove(node, safe=True)


def _cut(node: ir.Node) -> tuple[_Cut, Literal[0, 1]] | None:
    """Where a Slice cuts, and which side of it it takes; None where it takes another part."""
    if node.op_type != "Slice" or len(node.inputs) < 4:
        return None
    source, start, end, along, *steps = node.inputs
    axes = _numbers(along)
    if source is None or start is None or end is None or axes is None or len(axes) != 1:
        return None
    if steps and steps[0] is not None and _numbers(steps[0]) != [1]:
        return None
    starts, ends = _numbers(start), _numbers(end)
    from_first, to_last = starts == [0], ends is not None and ends[0] >= _NO_END
    if from_first == to_last:
        return None
    if from_first:
        return _Cut(source, axes[0], end if ends is None else ends[0]), 0
    return _Cut(source, axes[0], start if starts is None else starts[0]), 1


def _lengths(op: OpBuilder, cut: _Cut, sides: _Sides) -> ir.Value | list[int] | None:
    """Of the two parts; None where the place may lie outside."""
    source, axis, place = cut
    length = None if source.shape is None else source.shape[axis]
    if isinstance(place, int):
        if isinstance(length, int):
            return [place, length - place] if 0 < place < length else None
        if place <= 0 or len(sides) < 2:  # whoever reads both sides knows that there are two
            return None
    elif (producer := place.producer()) is None or producer.op_type != "Shape":
        return None
    before = op.value([place]) if isinstance(place, int) else place
    lengths: ir.Value = op.Concat(before, op.Sub(op.dim(source, axis), before), axis=0)
    return lengths


def _numbers(value: ir.Value | None) -> list[int] | None:
    """Those of a constant."""
    constant = None if value is None else ir.convenience.get_const_tensor(value)
    return None if constant is None else [int(number) for number in np.ravel(constant.numpy())]
