"""One graph becomes a plan: parsed and built, with the board's own TensorRT."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.arrays import Bytes
from tightrope.errors import BackendError
from tightrope.foreign import translated
from tightrope.plugins.initializers import outside
from tightrope.plugins.network import AxisRanges, profile_of, unparsed
from tightrope.runtime.backends.tensorrt import versions
from tightrope.runtime.backends.tensorrt.log import make_logger

_IGNORED = "Unused Input"
"""Begins a warning that an input's values would count for nothing."""
_SAID = 500
_A_PROFILE = 3
"""Lengths of an axis: shortest, most common, longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A plan, and what making it left."""

    plan: bytes
    timing: bytes
    """What TensorRT measured, for the next graph."""
    seconds: float
    layers: int


def build_plan(
    trt: Any, file: Path, ranges: AxisRanges, *, search: int = 3, timing: bytes = b""
) -> Built:
    """The plan of the graph in `file`; trt: the module `tensorrt`.

    ranges: lengths of its axes, of one optimization profile after another. search: 0 to 5, how long
    it looks for fast kernels. timing: what it measured before. Raises BackendError with TensorRT's
    words where the graph does not build.
    """
    start, logger = time.perf_counter(), make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(versions.network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    weights = _Mapped()  # which the parser reads until the engine is built
    parsed = _parse(parser, file, weights)
    if message := unparsed(parser, network, parsed, logger.errors):
        raise _failed(file, message)
    config = builder.create_builder_config()
    config.builder_optimization_level = search
    # What runs at once on other streams would need memory of its own, and cannot be captured.
    config.max_aux_streams = 0
    for profile_ranges in _apart(ranges):
        profile, message = profile_of(builder, network, profile_ranges)
        if message:
            raise _failed(file, message)
        config.add_optimization_profile(profile)
    cache = config.create_timing_cache(timing)
    config.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failed(file, "does not build: " + "; ".join(logger.errors))
    if unused := [text for text in logger.warnings if text.startswith(_IGNORED)]:
        raise _failed(file, "it would be ignored: " + "; ".join(unused))
    return Built(
        plan=bytes(plan),
        timing=bytes(config.get_timing_cache().serialize()),
        seconds=time.perf_counter() - start,
        layers=network.num_layers,
    )


def _apart(ranges: AxisRanges) -> list[AxisRanges]:
    """The ranges of each profile."""
    counts = {len(lengths) // _A_PROFILE for lengths in ranges.values()}
    return [
        {axis: lengths[start : start + _A_PROFILE] for axis, lengths in ranges.items()}
        for start in range(0, _A_PROFILE * max(counts, default=1), _A_PROFILE)
    ]


class _Mapped:
    """Files of weights where the kernel maps them, each once."""

    def __init__(self) -> None:
        self._files: dict[Path, Bytes] = {}

    def address(self, file: Path, offset: int, length: int) -> int:
        """Of `length` bytes from `offset`; raises ValueError where the file is shorter."""
        if file not in self._files:
            self._files[file] = np.memmap(file, np.uint8, "r")
        found = self._files[file]
        if offset < 0 or offset + length > len(found):
            raise ValueError(f"{file.name} ends before {offset + length} bytes")
        return int(found.ctypes.data) + offset


def _parse(parser: Any, file: Path, weights: _Mapped) -> bool:
    """Parse a graph whose weights lie beside it, where they are mapped if this parser can."""
    if not versions.takes_initializers(parser):
        return bool(parser.parse_from_file(str(file)))
    with translated(BackendError, f"{file.name} is damaged", "inspect --verify checks the bundle"):
        model = file.read_bytes()
        found = list(outside(model))
        places = [
            weights.address(file.parent / part.location, part.offset, part.length) for part in found
        ]
    if not parser.load_model_proto(model, str(file)):
        return False
    for part, place in zip(found, places, strict=True):
        if not parser.load_initializer(part.name, place, part.length):
            return False
    return bool(parser.parse_model_proto())


def _failed(file: Path, message: str) -> BackendError:
    return BackendError(
        f"{file.stem} {message[:_SAID]}; if it ran out of memory, stop what else runs; else "
        "`tightrope selftest BUNDLE --report FILE` writes what is needed to look into it"
    )
