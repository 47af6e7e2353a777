"""Traces to graph files: which variants a bundle has, written with their weights."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from tightrope.export.check import check_operators, operators_of
from tightrope.export.traces import Progress, Traces
from tightrope.export.variants import derive, simplified
from tightrope.export.weights import WeightFile

Variant = tuple[str, str, str, bool]
"""File, trace, face of SlotAttention, whether it serves one token a call."""


def write_graphs(
    traces: Traces,
    folder: Path,
    weights: WeightFile,
    *,
    wide: bool,
    standard_prefill: bool,
    progress: Progress,
) -> dict[str, dict[str, str]]:
    """Write every graph; returns the operators of each standard graph with one node's name.

    wide: standard graphs compute in float32 too. Raises UnsupportedModel for an operator that
    the oldest supported TensorRT does not parse.
    """
    operators = {}
    short: dict[tuple[str, bool], ir.Model] = {}
    variants = _variants(traces, standard_prefill)
    for number, (file, trace, face, single) in enumerate(variants):
        progress(f"writing {file}", number / len(variants))
        host = file.startswith("host.")
        key = (trace, host)
        if key not in short:
            short[key] = simplified(traces[trace], wide=wide or host, host=host)
        graph = derive(short[key], face, single=single)
        if file.startswith("standard."):
            check_operators(file, graph)
            operators[file] = operators_of(graph)
        weights.bind(graph)
        ir.save(graph, folder / f"{file}.onnx")
    return operators


def _variants(traces: Traces, standard_prefill: bool) -> list[Variant]:
    variants: list[Variant] = []
    for trace in traces:
        if trace == "decoder":
            variants.append(("host.decoder", trace, "both", False))
            variants.append(("standard.decode", trace, "step", True))
        else:
            variants.append((f"host.{trace}", trace, "general", False))
        if trace.startswith("decoder"):
            if standard_prefill:
                file = trace.replace("decoder", "standard.prefill")
                variants.append((file, trace, "general", False))
        else:
            variants.append((f"standard.{trace}", trace, "general", False))
    return variants
