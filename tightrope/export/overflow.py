"""Does float16 hold what the standard graphs compute? Looked at node by node, at the end of export.

ONNX Runtime runs the graphs on a CPU, where many operators compute in float32 and what lies between
two of them is not rounded: a value that float16 cannot hold passes, and on a GPU would be infinite.
So the largest number that each node gives is an output of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper, shape_inference

from tightrope.arrays import Array
from tightrope.export.recipe import Recipe
from tightrope.export.tracing.trace import parameter_name
from tightrope.export.walking import Graphs, Prompt, read, session, standard
from tightrope.inputs.positions import find_rule
from tightrope.interface.calls import Selection
from tightrope.interface.names import GraphName

MOST_HALF = float(np.finfo(np.float16).max)
_MARK = "largest of "
_ALL, _ZERO = f"{_MARK}all", f"{_MARK}none"
_MOVING = frozenset(
    {
        "Concat", "Constant", "ConstantOfShape", "DequantizeLinear", "Expand", "Gather",
        "GatherElements", "GatherND", "Identity", "Neg", "Reshape", "Slice", "Split", "Squeeze",
        "Tile", "TopK", "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip
"""Operators whose numbers were there before, or are weights."""
_LAYOUT = re.compile(r"\.(transposed|codes)(\.\d+)?$")


@dataclass(frozen=True)
class Watched(Graphs):
    """Standard graphs of a decoder that tell what they reach."""

    seen: dict[str, float] = field(default_factory=dict)
    """By node the largest number that it gave in any call, in the graphs' order."""

    def run(self, named: dict[str, Array]) -> dict[str, Array]:
        """As of graphs that nobody watches."""
        outputs = Graphs.run(self, named)
        for name in [name for name in outputs if name.startswith(_MARK)]:
            # Of a number and what is none the latter counts.
            self.seen[name] = float(np.maximum(outputs.pop(name), self.seen.get(name, 0.0)))
        return outputs

    def overflow(self) -> str | None:
        """The first node whose numbers float16 does not hold, and what they reach."""
        return _first(self.seen)


def watched(folder: Path, schedule: str = "") -> Watched:
    """The decoder of a bundle; schedule: by its graph that drops visual tokens inside."""
    graphs = standard(folder, _telling, schedule)
    return Watched(graphs.prefill, graphs.decode)


def schedule_overflow(folder: Path, prompt: Prompt, recipe: Recipe) -> str | None:
    """The same of the graphs that drop tokens inside, here every other visual one."""
    rule = find_rule(recipe.checkpoint.family.positions)
    visual = prompt.stream.visual[None]
    keep = -(-visual.shape[1] // 2)
    for name, stages in recipe.schedules.items():
        layers = tuple(stage.layer for stage in stages)
        selection = Selection(name, visual, (keep,) * len(stages), layers)
        graphs = watched(folder, name)
        read(graphs, prompt, recipe.dims, rule, selection)
        if (found := graphs.overflow()) is not None:
            return found
    return None


def tower_overflow(folder: Path, inputs: Mapping[str, Array]) -> str | None:
    """The same of the tower that sees one picture."""
    file = folder / GraphName("standard", "vision").file
    by_place = onnxruntime.ExecutionOrder.PRIORITY_BASED  # what was looked at need not be kept
    graph = session(file, content=_telling(file), order=by_place)
    given = {
        item.name: inputs[item.name].astype(np.float16)
        if item.type == "tensor(float16)"
        else inputs[item.name]
        for item in graph.get_inputs()
    }
    names = [item.name for item in graph.get_outputs() if item.name.startswith(_MARK)]
    found = graph.run(names, given) if names else []
    return _first(dict(zip(names, map(float, found), strict=True)))


def _first(seen: Mapping[str, float]) -> str | None:
    for name, largest in seen.items():
        if not largest <= MOST_HALF:
            return f"{name.removeprefix(_MARK)} reaches {largest:,.0f}"
    return None


def _telling(file: Path) -> bytes:
    """The graph with the largest number of each float16 value as a further output."""
    model = onnx.load(file, load_external_data=False)
    graph, kinds = model.graph, _element_types(model)
    nodes, known = list(graph.node), _weights(model)
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        for output in () if node.op_type in _MOVING else node.output:
            if kinds.get(output) == onnx.TensorProto.FLOAT16:
                weight = next((known[name] for name in node.input if name in known), None)
                what = node.op_type if weight is None else f"{node.op_type} with {weight}"
                name = f"{_MARK}{node.name or output} ({what}) in {GraphName.parse(file.name)}"
                graph.node.extend(_looking(output, name))
                graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []))
    for name, numbers in ((_ALL, np.array([-1])), (_ZERO, np.zeros(1, np.float32))):
        graph.initializer.append(numpy_helper.from_array(numbers, name))
    content: bytes = model.SerializeToString()
    return content


def _looking(value: str, name: str) -> Iterator[onnx.NodeProto]:
    """Nodes that give the largest number of `value`, 0 where it has none."""
    wide, flat, more, sizes = (f"{name}/{step}" for step in ("wide", "flat", "more", "sizes"))
    yield helper.make_node("Cast", [value], [wide], to=onnx.TensorProto.FLOAT)
    yield helper.make_node("Reshape", [wide, _ALL], [flat])
    yield helper.make_node("Concat", [flat, _ZERO], [more], axis=0)
    yield helper.make_node("Abs", [more], [sizes])
    yield helper.make_node("ReduceMax", [sizes], [name], keepdims=0)


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _weights(model: onnx.ModelProto) -> dict[str, str]:
    """Value -> the matrix of a linear layer that it is, as Hugging Face calls it."""
    found = {
        tensor.name: parameter_name(_LAYOUT.sub("", tensor.name))
        for tensor in model.graph.initializer
        if _LAYOUT.search(tensor.name)
    }
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found
