"""Whether standard graphs will build on a board: operator lists, then a real TensorRT parser.

The lists speak for the oldest TensorRT that is served and need no TensorRT. TensorRT for RTX
parses and builds on a CPU, but is of a newer generation and accepts more: both must pass.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tightrope.bundle import Bundle
from tightrope.errors import BackendError
from tightrope.export.check.operators import listed, refusals
from tightrope.interface.names import GraphName
from tightrope.plugins.parsers import OLDEST, load_parser
from tightrope.plugins.parsers.bundled import refused, standard_graphs

RTX_PROCESS = ("-m", "tightrope.export.check.rtx_process")
TIMEOUT_SECONDS = 1800.0
_LINES_OF_A_CRASH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What became of one graph."""

    graph: str
    ok: bool
    message: str
    """Why it failed; empty if it did not."""
    seconds: float
    warnings: tuple[str, ...] = ()


def check_bundle(path: str | PathLike[str]) -> list[CheckResult]:
    """One result for each standard graph of the bundle in folder `path`.

    Raises BackendError if TensorRT for RTX is not installed, BundleError for a damaged bundle.
    """
    _require_rtx()
    bundle = Bundle.open(path)
    return [_check_bundled(bundle, name) for name in standard_graphs(bundle.manifest)]


def check_graph(
    name: str,
    file: Path,
    ranges: Mapping[str, Sequence[int]],
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> CheckResult:
    """Graph `name` in `file` against the list of TensorRT 10.3, then in TensorRT for RTX.

    ranges: axis name -> shortest, most common and longest length.
    Whatever happens to the graph is in the result. Raises BackendError without TensorRT for RTX.
    """
    _require_rtx()
    start = time.perf_counter()
    warnings: tuple[str, ...] = ()
    if not (message := _refused_file(file)):
        message, warnings = _run_rtx(file, ranges, timeout_seconds)
    seconds = time.perf_counter() - start
    return CheckResult(
        graph=name, ok=not message, message=message, seconds=seconds, warnings=warnings
    )


def _check_bundled(bundle: Bundle, name: GraphName) -> CheckResult:
    manifest, text = bundle.manifest, str(name)
    if reasons := refused(manifest, name, load_parser(OLDEST)):
        return CheckResult(graph=text, ok=False, message=listed(reasons), seconds=0.0)
    return check_graph(text, bundle.graph(name), manifest.ranges(name))


def _refused_file(file: Path) -> str:
    """Why the operator list refuses the graph in `file`; empty if it does not."""
    try:
        model = onnx.load(file, load_external_data=False)
    except (OSError, DecodeError) as error:
        return f"{file.name} is no ONNX model: {error}"
    if not model.opset_import:
        return f"{file.name} is no ONNX model: it names no opset"
    typed = onnx.shape_inference.infer_shapes(model)
    return listed(refusals(ir.from_proto(typed), load_parser(OLDEST)))


def _run_rtx(
    file: Path, ranges: Mapping[str, Sequence[int]], timeout_seconds: float
) -> tuple[str, tuple[str, ...]]:
    """Why TensorRT for RTX refuses the graph, empty if it does not; and its warnings."""
    command = [sys.executable, *RTX_PROCESS, str(file), "--profiles", json.dumps(dict(ranges))]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"TensorRT for RTX did not finish within {timeout_seconds:.0f} s", ()
    result = _last_json(run.stdout)
    if run.returncode or result is None:
        status = run.returncode
        end = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        last = " | ".join(run.stderr.strip().splitlines()[-_LINES_OF_A_CRASH:])
        return f"TensorRT for RTX ended {end}: {last}", ()
    return result["message"], tuple(result["warnings"])


def _last_json(text: str) -> dict[str, Any] | None:
    try:
        result = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return None
    return result if isinstance(result, dict) else None


def _require_rtx() -> None:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        raise BackendError(
            "the check parses graphs with TensorRT for RTX, which is not installed; "
            "run `pip install 'tightrope[check]'` (x86-64 Linux)"
        )
