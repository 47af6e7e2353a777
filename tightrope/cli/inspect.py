"""`tightrope inspect`: what a bundle holds, and what it will take up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from tightrope.bundle import Bundle, Manifest
from tightrope.cli.build import print_plan
from tightrope.cli.export import parity_rows, slots_text, tower_rows, weight_rows
from tightrope.cli.options import BundlePath, Json
from tightrope.cli.output import bytes_text, print_json, print_pairs
from tightrope.errors import InputError
from tightrope.jetson.device import Device, find_device
from tightrope.jetson.facts import facts_of
from tightrope.jetson.memory import MemoryPlan, plan_memory
from tightrope.jetson.roofline import (
    DevicePrediction,
    RequestPrediction,
    decoder_sizes,
    predict_from_device,
    predict_request,
)
from tightrope.runtime.memory import resident_memory
from tightrope.schemas import versioned


def inspect(
    bundle: BundlePath,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", metavar="", help="Hash every file again, whatever was remembered."
        ),
    ] = False,
    board: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Adds what a board such as orin-nano-8gb would take for it."
        ),
    ] = None,
    power_mode: Annotated[
        str | None, typer.Option(metavar="MODE", help="Of that board; its fastest if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what a bundle was made from and for, its files, and the memory it needs."""
    if power_mode is not None and board is None:
        raise InputError(f"--power-mode is {power_mode!r} but --board is missing; name one")
    device = None if board is None else find_device(board, power_mode)
    manifest = Bundle.open(bundle, verify=verify).manifest
    memory = resident_memory(manifest)
    promised = None if device is None else Promise.of(device, manifest)
    if json:
        values: dict[str, Any] = {"bundle": manifest.to_dict(), "memory_bytes": memory}
        if promised is not None:
            values["data_sheet"] = promised.to_dict()
        print_json(versioned("inspect", values))
        return
    print_pairs(str(bundle), _facts(manifest))
    files = {name: entry.bytes for name, entry in manifest.files.items()}
    print_pairs(
        f"\n{len(files)} files, {bytes_text(sum(files.values()))}",
        [(name, bytes_text(size)) for name, size in files.items()],
        numbers=True,
    )
    print_pairs(
        "\nMemory, estimated",
        [(name, bytes_text(size)) for name, size in memory.items()],
        numbers=True,
    )
    if promised is not None:
        _print_promise(promised, manifest.prefill_chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a board's data sheet and counted bytes say of a bundle; nothing of it was measured."""

    chunk: DevicePrediction
    """A full prefill call, and steps behind it."""
    request: RequestPrediction
    memory: MemoryPlan

    @classmethod
    def of(cls, device: Device, manifest: Manifest) -> Promise:
        """For the bundle on that board in that mode."""
        chunk = manifest.prefill_chunk
        sizes = decoder_sizes(manifest)
        facts = facts_of(device.name, device.power_mode)
        return cls(
            chunk=predict_from_device(device, sizes, prompt_tokens=chunk, context=chunk),
            request=predict_request(device, manifest),
            memory=plan_memory(manifest, facts),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        request = asdict(self.request) | {"ttft_ms": self.request.ttft_ms}
        memory = asdict(self.memory) | {"fits": self.memory.fits}
        return {**asdict(self.chunk), "request": request, "memory": memory, "proof_level": 0}


def _print_promise(promised: Promise, tokens: int) -> None:
    chunk, request = promised.chunk, promised.request
    device = chunk.device
    seen = (
        ""
        if request.resolution is None
        else (f", {request.visual_tokens} of an image at {request.resolution}")
    )
    rows = [
        (f"prefill of {tokens} tokens (operations: 2 a weight and token)", chunk.prefill_ms),
        (f"a token behind {tokens} slots (bytes: weights and slots)", chunk.tpot_ms),
    ]
    if request.resolution is not None:
        rows.append(("vision (operations: 2 a weight and patch)", request.vision_ms))
    rows += [
        (f"first token of {request.prompt_tokens} tokens{seen}", request.ttft_ms),
        ("each token behind it", request.tpot_ms),
    ]
    print_pairs(
        f"\n{device.name}, {device.power_mode}, guessed from {chunk.basis} (proof level 0)",
        [(what, f"{ms:.1f} ms") for what, ms in rows],
        numbers=True,
    )
    print()
    print_plan(promised.memory, facts_of(device.name, device.power_mode))


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    return [
        ("family", manifest.family),
        ("precision", manifest.precision),
        ("slots", slots_text(manifest)),
        *_limits(manifest),
        ("resolutions", _resolutions(manifest)),
        ("selectors", _listed(manifest.selectors)),
        ("schedules", _listed(manifest.schedules)),
        ("own ops as plugins", _plugins(manifest)),
        ("ONNX Runtime", f"{manifest.minimum_onnxruntime} or newer"),
        *((f"source: {name}", value) for name, value in asdict(manifest.source).items()),
        *weight_rows(manifest.weights),
        *tower_rows(manifest.tower_int8),
        *parity_rows(manifest.parity),
        *((f"exported with {name}", value) for name, value in manifest.exporter.items()),
    ]


def _limits(manifest: Manifest) -> list[tuple[str, str]]:
    """What few models have: layers that see a window, positions that end."""
    found = []
    windows = [window for window in manifest.windows if window]
    if windows:
        layers = f"{len(windows)} of {len(manifest.windows)} layers"
        seen = _listed(str(window) for window in sorted(set(windows)))
        found.append(("windows", f"{layers} see and hold the newest {seen} tokens"))
    if manifest.max_positions is not None:
        found.append(("conversations", f"{manifest.max_positions} tokens at most"))
    return found


def _resolutions(manifest: Manifest) -> str:
    vision, tower = manifest.vision, manifest.tower
    if vision is None or tower is None:
        return "none: a text model"

    counts = {side: tower.most_tokens(side) for side in vision.resolutions}
    return _listed(f"{side} ({count} tokens)" for side, count in counts.items())


def _plugins(manifest: Manifest) -> str:
    """Which of our ops the graphs for plugins have, or why there are no such graphs."""
    if not manifest.plugins:
        return f"none: {'; '.join(manifest.no_plugins) or 'exported without'}"
    ops = sorted({op for graph in manifest.plugins.values() for op in graph.own_ops})
    kernels = {name for graph in manifest.plugins.values() for name in graph.kernels}
    return f"{_listed(ops)}, of {len(kernels)} kernels"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
