"""`tightrope inspect`: what a bundle holds, and what it will take up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from tightrope.bundle import Bundle, Manifest
from tightrope.cli.export import parity_rows, weight_rows
from tightrope.cli.options import BundlePath, Json
from tightrope.cli.output import bytes_text, print_json, print_pairs
from tightrope.errors import InputError
from tightrope.jetson.device import Device, find_device
from tightrope.jetson.roofline import DevicePrediction, decoder_sizes, predict_from_device
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
            metavar="NAME", help="Adds what its data sheet promises, such as 'Orin Nano 8GB'."
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
    promised = None if device is None else promise(device, manifest)
    if json:
        values: dict[str, Any] = {"bundle": manifest.to_dict(), "memory_bytes": memory}
        if promised is not None:
            values["data_sheet"] = asdict(promised)
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


def promise(device: Device, manifest: Manifest) -> DevicePrediction:
    """A full prefill call on the device, and steps behind it; nothing of it was measured."""
    chunk = manifest.prefill_chunk
    return predict_from_device(device, decoder_sizes(manifest), prompt_tokens=chunk, context=chunk)


def _print_promise(promised: DevicePrediction, tokens: int) -> None:
    device = promised.device
    print_pairs(
        f"\n{device.name}, {device.power_mode}, guessed from {promised.basis}",
        [
            (f"prefill of {tokens} tokens", f"{promised.prefill_ms:.0f} ms"),
            (f"a token behind {tokens} slots", f"{promised.tpot_ms:.1f} ms"),
        ],
        numbers=True,
    )


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    return [
        ("family", manifest.family),
        ("precision", manifest.precision),
        ("slots", f"{manifest.slots}, prefill in chunks of {manifest.prefill_chunk}"),
        *_limits(manifest),
        ("resolutions", _resolutions(manifest)),
        ("selectors", _listed(manifest.selectors)),
        ("schedules", _listed(manifest.schedules)),
        ("ONNX Runtime", f"{manifest.minimum_onnxruntime} or newer"),
        *((f"source: {name}", value) for name, value in asdict(manifest.source).items()),
        *weight_rows(manifest.weights),
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


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
