"""Traces to graph files, written with their weights."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from tightrope.export.check.operators import check_operators, operators_of
from tightrope.export.graphs.derive import derive, simplified
from tightrope.export.graphs.files import graph_files
from tightrope.export.graphs.passes.linear import to_codes
from tightrope.export.graphs.traces import Traces
from tightrope.export.recipe import Recipe
from tightrope.export.weights import WeightFile
from tightrope.interface.names import Role
from tightrope.progress import Progress


def write_graphs(
    recipe: Recipe, traces: Traces, folder: Path, weights: WeightFile, progress: Progress
) -> dict[str, dict[str, str]]:
    """Write every graph; returns the operators of each standard graph with one node's name.

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
    return operators
