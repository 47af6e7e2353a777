"""Traces to graph files, written with their weights."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from tightrope.export.check.operators import check_operators, operators_of
from tightrope.export.graphs.derive import derive, in_int8, simplified
from tightrope.export.graphs.files import graph_files
from tightrope.export.graphs.passes.linear import to_codes
from tightrope.export.graphs.traces import Traces
from tightrope.export.recipe import Recipe
from tightrope.export.weights import WeightFile
from tightrope.interface.names import Role
from tightrope.progress import Progress

_TOWER: tuple[Role, str] = ("vision", "")


def write_graphs(
    recipe: Recipe, traces: Traces, folder: Path, weights: WeightFile, progress: Progress
) -> tuple[dict[str, dict[str, str]], Path | None]:
    """Write every graph; returns the operators of each standard graph with one node's name, and
    the file of the host's tower in int8 where it is to be tried.

    Raises UnsupportedModel for an operator that the oldest supported TensorRT does not parse.
    """
    operators = {}
    short: dict[tuple[tuple[Role, str], bool], ir.Model] = {}
    files = list(graph_files(recipe))
    for number, file in enumerate(files):
        name = str(file.name)
        progress(f"writing {name}", number / len(files))
        host = file.name.variant == "host"
        if (file.trace, host) not in short:
            wide = host or recipe.precision.activations == "float32"
            model = simplified(traces[file.trace], wide=wide, host=host)
            if file.trace[0] == "decoder":
                to_codes(model, weights.form, host)
            short[file.trace, host] = model
        graph = derive(short[file.trace, host], file)
        if file.name.variant == "standard":
            check_operators(name, graph)
            operators[name] = operators_of(graph)
        weights.bind(graph)
        ir.save(graph, folder / f"{name}.onnx")
    if not recipe.tower.int8:
        return operators, None
    # Behind all others: what it reads lies at the end of the weight file.
    graph = in_int8(short[_TOWER, True])
    weights.bind(graph)
    trial = folder / "vision-int8.onnx"
    ir.save(graph, trial)
    return operators, trial
