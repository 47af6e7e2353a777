"""Parses and builds one ONNX graph with TensorRT for RTX, on a CPU, in a process of its own.

    python -m tightrope.export.check.rtx_process GRAPH --profiles '{"S": [1, 64, 512]}'

prints one line of JSON. It is a process because TensorRT may abort: nothing catches that from
inside. No plugin is registered, so that only what the parser knows by itself passes.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import tensorrt_rtx as trt

from tightrope.plugins.network import AxisRanges, profile_of, unparsed

# Our graphs have int64 inputs, and inputs of which only the length counts (keep_ramp).
EXPECTED = ("has Int64 binding", "used only at compile-time")


class _Logger(trt.ILogger):  # type: ignore[misc]
    """Keeps warnings and errors, and prints nothing."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        if severity == trt.ILogger.WARNING:
            if not any(text in message for text in EXPECTED):
                self.warnings.append(message)
        elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.errors.append(message)


def check(graph: str, ranges: AxisRanges) -> dict[str, Any]:
    """What became of one graph: ok, message, warnings, parse_seconds, build_seconds, layers."""
    logger = _Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    result: dict[str, Any] = {"ok": False, "warnings": logger.warnings}

    start = time.perf_counter()
    parsed = parser.parse_from_file(graph)
    result |= {"parse_seconds": time.perf_counter() - start, "layers": network.num_layers}
    if message := unparsed(parser, network, parsed, logger.errors):
        return result | {"message": message}

    config = builder.create_builder_config()
    config.builder_optimization_level = 0
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)  # Orin's 8.7 is not offered
    profile, message = profile_of(builder, network, ranges)
    if message:
        return result | {"message": message}
    config.add_optimization_profile(profile)

    start = time.perf_counter()
    engine = builder.build_serialized_network(network, config)
    result["build_seconds"] = time.perf_counter() - start
    if engine is None:
        return result | {"message": "does not build: " + "; ".join(logger.errors)}
    if unused := [text for text in logger.warnings if text.startswith("Unused Input")]:
        return result | {"message": "it would be ignored: " + "; ".join(unused)}
    return result | {"ok": True, "message": ""}


def main() -> None:
    """Run `check` on the command line's graph and print its result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graph")
    parser.add_argument("--profiles", default="{}", help="JSON: axis -> [min, opt, max]")
    arguments = parser.parse_args()
    print(json.dumps(check(arguments.graph, json.loads(arguments.profiles))), flush=True)


if __name__ == "__main__":
    main()
