"""Traces to graph files, written with their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from tightrope.bundle import PluginGraph
from tightrope.errors import UnsupportedModel
from tightrope.export.check.operators import check_operators, of_onnx, operators_of, own_of
from tightrope.export.graphs.derive import derive, in_int8, simplified
from tightrope.export.graphs.files import GraphFile, graph_files, plugin_files
from tightrope.export.graphs.passes.int8_slots import hold_in_int8
from tightrope.export.graphs.passes.linear import to_codes
from tightrope.export.graphs.passes.own import (
    codes_as_bytes,
    kernels_of,
    own_nodes,
    refused_by_kernels,
)
from tightrope.export.graphs.traces import Traces
from tightrope.export.recipe import Recipe
from tightrope.export.weights import WeightFile
from tightrope.interface.names import Role
from tightrope.interface.tensors import FLOAT_SLOTS, INT8_SLOTS
from tightrope.plugins.own_nodes import read_own_nodes
from tightrope.progress import Progress

_TOWER: tuple[Role, str] = ("vision", "")
Short = dict[tuple[tuple[Role, str], bool], ir.Model]
"""By trace, and whether it is for the host: the simplified graph, own ops still in it."""


@dataclass(slots=True)
class Written:
    """What is known of the graphs that were written."""

    operators: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of each standard graph, with one node's name."""
    trial: Path | None = None
    """The host's tower in int8 where it is to be tried."""
    plugins: dict[str, PluginGraph] = field(default_factory=dict)
    no_plugins: tuple[str, ...] = ()
    """Why there are none."""

    def notes(self) -> list[str]:
        """Sentences for the summary."""
        if not self.no_plugins:
            return []
        return [
            "no graphs with plugins of TensorRT, the standard ones serve it alone: "
            f"{'; '.join(self.no_plugins)}"
        ]


def write_graphs(
    recipe: Recipe, traces: Traces, folder: Path, weights: WeightFile, progress: Progress
) -> Written:
    """Write every graph.

    Raises UnsupportedModel for an operator that the oldest supported TensorRT does not parse.
    """
    written, short = Written(), Short()
    files = list(graph_files(recipe))
    for number, file in enumerate(files):
        name = str(file.name)
        progress(f"writing {name}", number / len(files))
        host = file.name.variant in ("host", "int8")
        if (file.trace, host) not in short:
            wide = host or recipe.precision.activations == "float32"
            model = simplified(traces[file.trace], wide=wide, host=host)
            if file.trace[0] == "decoder":
                to_codes(model, weights.form, host)
            short[file.trace, host] = model
        graph = derive(short[file.trace, host], file)
        if file.name.variant == "standard":
            check_operators(name, graph)
            written.operators[name] = operators_of(graph)
        weights.bind(graph)
        ir.save(graph, folder / f"{name}.onnx")
    _write_plugins(recipe, short, folder, weights, written)
    if recipe.tower.int8:
        # Behind all others: what it reads lies at the end of the weight file.
        trial = in_int8(short[_TOWER, True])
        if trial is not None:
            weights.bind(trial)
            written.trial = folder / "vision-int8.onnx"
            ir.save(trial, written.trial)
    return written


def _write_plugins(
    recipe: Recipe, short: Short, folder: Path, weights: WeightFile, written: Written
) -> None:
    """The graphs in which own ops stay, on the weights of the standard ones; all or none of them.

    A graph without own ops is the standard one. What kernels do not take is no error: the standard
    graphs serve the model. Raises UnsupportedModel where they do not, with slots in int8.
    """
    having = {
        trace: model for (trace, host), model in short.items() if not host and any(own_nodes(model))
    }
    refused = {reason: None for model in having.values() for reason in refused_by_kernels(model)}
    in_int8 = recipe.config.kv_cache == INT8_SLOTS
    if refused and in_int8:
        raise UnsupportedModel(
            f"kv_cache is {INT8_SLOTS}, which kernels alone read, and they do not take this model: "
            f"{'; '.join(refused)}; accepted: {FLOAT_SLOTS}"
        )
    if refused:
        written.no_plugins = tuple(refused)
        return
    for trace, model in having.items() if in_int8 else ():
        if trace[0] == "decoder":
            having[trace] = model = model.clone()
            hold_in_int8(model, recipe.dims)
    for file in plugin_files(having):
        written.plugins[str(file.name)] = _write_plugin(file, having, folder, weights)


def _write_plugin(
    file: GraphFile, having: Mapping[tuple[Role, str], ir.Model], folder: Path, weights: WeightFile
) -> PluginGraph:
    name, model = str(file.name), having[file.trace]
    graph = derive(model, file)
    check_operators(name, graph, own=True)
    weights.bind(graph)
    codes_as_bytes(graph)
    target = folder / f"{name}.onnx"
    ir.save(graph, target)
    read_own_nodes(target.read_bytes(), target.name)
    found = operators_of(graph)
    return PluginGraph(operators=of_onnx(found), own_ops=own_of(found), kernels=kernels_of(model))
