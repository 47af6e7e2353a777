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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tightrope.bundle import Bundle, Manifest, VisionInfo
from tightrope.errors import BackendError, UnsupportedModel
from tightrope.plugins.parsers import OLDEST, Parser, load_parser

RTX_PROCESS = ("-m", "tightrope.export.check_rtx")
TIMEOUT_SECONDS = 1800.0
STANDARD_DOMAINS = ("", "ai.onnx")
_LINES_OF_A_CRASH = 3
_REASONS_SHOWN = 5
MOST_IMAGES, MOST_ROWS = 4, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What became of one graph."""

    graph: str
    ok: bool
    message: str
    """Why it failed; empty if it did not."""
    seconds: float
    warnings: tuple[str, ...] = ()


def operators_of(model: ir.Model) -> dict[str, str]:
    """Operator -> one node of that type, bodies of If and Loop and local functions included.

    An operator of another domain than ONNX's own is named domain::Operator.
    """
    found: dict[str, str] = {}
    for node in _nodes(model):
        found.setdefault(_operator(node), _label(node))
    return dict(sorted(found.items()))


def check_operators(name: str, model: ir.Model) -> None:
    """Raise UnsupportedModel if standard graph `name` holds what TensorRT 10.3 refuses.

    Element types are compared where the graph states them.
    """
    if refused := refusals(model, load_parser(OLDEST)):
        raise UnsupportedModel(
            f"graph {name} would not parse on TensorRT {OLDEST}: {_some(refused)}; "
            "express it with operators that the list has, or leave out what brought it in"
        )


def refusals(model: ir.Model, parser: Parser) -> list[str]:
    """A sentence for each operator, attribute, input or element type that `parser` refuses."""
    return [
        *parser.refuse(operators_of(model)),
        *(
            f"{node.op_type} (node {_label(node)}) {reason}"
            for node in _nodes(model)
            if node.domain in STANDARD_DOMAINS and node.op_type in parser.types
            for reason in _restrictions(node, parser, model.opset_imports.get("", 0))
        ),
    ]


def check_bundle(path: str | PathLike[str]) -> list[CheckResult]:
    """One result for each standard graph of the bundle in folder `path`.

    Raises BackendError if TensorRT for RTX is not installed, BundleError for a damaged bundle.
    """
    _require_rtx()
    bundle = Bundle.open(path)
    return [_check_bundled(bundle, name) for name in standard_graphs(bundle.manifest)]


def standard_graphs(manifest: Manifest) -> list[str]:
    """Names of the bundle's standard graphs, such as standard.decode."""
    names = [Path(file).stem for file in manifest.files if file.endswith(".onnx")]
    return sorted(name for name in names if name.startswith("standard."))


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


def axis_ranges(graph: str, manifest: Manifest) -> dict[str, tuple[int, int, int]]:
    """Axis -> shortest, most common and longest length in standard graph `graph`.

    The axes are those of `tightrope.interface`; an axis that a graph lacks does no harm.
    """
    chunk, slots = manifest.prefill_chunk, manifest.slots
    layers = range(manifest.dims.num_hidden_layers)
    ranges = {"N": (1, 1, MOST_ROWS), "S": (1, chunk, chunk), "T": (1, min(32, chunk), chunk)}
    ranges["C"] = (1, slots // 2, slots)
    # Prefill gets the occupied slots, at first none of them; decode gets all.
    decode = graph == "standard.decode"
    ranges |= {f"U{i}": (1 if decode else 0, slots // 2, slots) for i in layers}
    if decode:
        ranges["S"] = (1, 1, 1)
    if manifest.vision:
        ranges |= _visual_ranges(manifest.vision)
    if manifest.vision and graph.startswith("standard.prefill"):
        # All images of a call together, inside one chunk; a call without an image has V = K = 1.
        most = min(MOST_IMAGES * ranges["V"][2], chunk)
        usual = min(ranges["V"][1], most)
        stages = max((len(stages) for stages in manifest.schedules.values()), default=0)
        ranges["V"] = (1, usual, most)
        ranges |= {f"K{i}": (1, max(1, usual >> (i + 1)), most) for i in range(stages)}
    return ranges


def _visual_ranges(vision: VisionInfo) -> dict[str, tuple[int, int, int]]:
    sides = vision.resolutions
    low, own, high = min(sides), sides[0], max(sides)
    fewest, usual, most = (vision.tokens(side) for side in (low, own, high))
    return {
        "I": (1, 1, MOST_IMAGES),
        "H": (low, own, high),
        "W": (low, own, high),
        "P": (1 + fewest, 1 + usual, 1 + most),
        "V": (fewest, usual, most),
        "K": (1, max(1, usual // 2), most),
    }


def _check_bundled(bundle: Bundle, name: str) -> CheckResult:
    manifest, parser = bundle.manifest, load_parser(OLDEST)
    reasons = parser.refuse(manifest.standard_ops.get(name, {}))
    if name not in manifest.standard_ops:
        reasons.append("bundle.json lists no operators for it")
    ranked = manifest.slots + manifest.prefill_chunk
    if name.startswith("standard.prefill") and ranked >= parser.topk_limit:
        reasons.append(
            f"{manifest.slots} slots and {manifest.prefill_chunk} new tokens are ranked together, "
            f"TensorRT ranks fewer than {parser.topk_limit}; export with fewer slots"
        )
    if reasons:
        return CheckResult(graph=name, ok=False, message=_some(reasons), seconds=0.0)
    return check_graph(name, bundle.graph(name), axis_ranges(name, manifest))


def _refused_file(file: Path) -> str:
    """Why the operator list refuses the graph in `file`; empty if it does not."""
    try:
        model = onnx.load(file, load_external_data=False)
    except (OSError, DecodeError) as error:
        return f"{file.name} is no ONNX model: {error}"
    if not model.opset_import:
        return f"{file.name} is no ONNX model: it names no opset"
    typed = onnx.shape_inference.infer_shapes(model)
    return _some(refusals(ir.from_proto(typed), load_parser(OLDEST)))


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


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node, those of bodies inside nodes included."""
    for graph in (model.graph, *model.functions.values()):
        yield from ir.traversal.RecursiveGraphIterator(graph)


def _operator(node: ir.Node) -> str:
    if node.domain in STANDARD_DOMAINS:
        return str(node.op_type)
    return f"{node.domain}::{node.op_type}"


def _label(node: ir.Node) -> str:
    return str(node.name or f"that gives {node.outputs[0].name}")


def _restrictions(node: ir.Node, parser: Parser, opset: int) -> Iterator[str]:
    """What `parser` refuses of one node of an operator that it has."""
    operator = node.op_type
    version = f"TensorRT {parser.version}"
    if opset > parser.newest_opset.get(operator, opset):
        yield f"has opset {opset}, {version} reads it as of {parser.newest_opset[operator]}"
    for name, accepted in parser.attributes.get(operator, {}).items():
        if name in node.attributes and (value := _plain(node.attributes[name])) not in accepted:
            yield f"has {name} = {value!r}, {version} accepts {_words(accepted)}"
    for place in parser.constant_inputs.get(operator, ()):
        if place < len(node.inputs) and not _is_constant(node.inputs[place]):
            yield f"computes its input {place}, for {version} it must be a constant"
    used = [i for i, output in enumerate(node.outputs) if output.uses() or output.is_graph_output()]
    if used and max(used) >= parser.outputs.get(operator, len(node.outputs)):
        yield f"uses output {max(used)}, which {version} does not give"
    counted = [
        node.inputs[i] for i in parser.type_inputs.get(operator, (0,)) if i < len(node.inputs)
    ]
    for dtype in sorted({dtype for value in counted if (dtype := _element_type(value))}):
        if dtype not in (accepted := parser.types[operator]):
            yield f"computes on {dtype}, {version} accepts {_words(accepted)}"


def _plain(attribute: ir.Attr) -> Any:
    return list(attribute.value) if isinstance(attribute.value, tuple | list) else attribute.value


def _is_constant(value: ir.Value | None) -> bool:
    if value is None or value.const_value is not None:
        return True
    producer = value.producer()
    return producer is not None and producer.op_type == "Constant"


def _element_type(value: ir.Value | None) -> str | None:
    """Element type as the lists spell it, None where the graph does not state it."""
    if value is None:
        return None
    dtype = value.dtype
    if dtype is None and value.const_value is not None:
        dtype = value.const_value.dtype
    producer = value.producer()
    if dtype is None and producer is not None and producer.op_type == "Constant":
        tensor = producer.attributes.get("value")
        dtype = tensor.value.dtype if tensor is not None else None
    if dtype is None:
        return None
    name = str(dtype.name).lower()
    if name.startswith("float8"):
        return "fp8"
    return {"float": "float32", "float4e2m1": "fp4"}.get(name, name)


def _words(values: Iterable[Any]) -> str:
    return " or ".join(str(value) for value in values)


def _some(reasons: Sequence[str]) -> str:
    more = len(reasons) - _REASONS_SHOWN
    return "; ".join(reasons[:_REASONS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
