"""`tightrope export`: a checkpoint becomes a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tightrope.bundle import Manifest, Parity, TowerInt8, WeightGroup
from tightrope.cli.options import Json, option
from tightrope.cli.output import (
    bytes_text,
    figure,
    print_json,
    print_pairs,
    progress_on_terminal,
)
from tightrope.configs import default_of
from tightrope.errors import InputError
from tightrope.export.config import ExportConfig, ExportSummary
from tightrope.folders import reaching
from tightrope.interface.tensors import FLOAT_SLOTS

if TYPE_CHECKING:
    from tightrope.export.calibration import Sample


def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A folder, a hub id owner/name, or a GGUF.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The folder to write.")
    ],
    precision: Annotated[str, option(ExportConfig, "precision", metavar="NAME")] = default_of(
        ExportConfig, "precision"
    ),
    slots: Annotated[int, option(ExportConfig, "slots", metavar="N")] = default_of(
        ExportConfig, "slots"
    ),
    kv_cache: Annotated[str, option(ExportConfig, "kv_cache", metavar="NAME")] = default_of(
        ExportConfig, "kv_cache"
    ),
    prefill_chunk: Annotated[int | None, option(ExportConfig, "prefill_chunk", metavar="N")] = None,
    selector: Annotated[
        list[str] | None,
        option(ExportConfig, "selectors", "--selector", metavar="NAME", repeated=True),
    ] = None,
    schedule: Annotated[
        list[str] | None,
        option(ExportConfig, "schedules", "--schedule", metavar="NAME", repeated=True),
    ] = None,
    resolution: Annotated[
        list[int] | None,
        option(ExportConfig, "resolutions", "--resolution", metavar="PIXELS", repeated=True),
    ] = None,
    tower_precision: Annotated[
        str, option(ExportConfig, "tower_precision", metavar="NAME")
    ] = default_of(ExportConfig, "tower_precision"),
    prefill_precision: Annotated[
        str, option(ExportConfig, "prefill_precision", metavar="NAME")
    ] = default_of(ExportConfig, "prefill_precision"),
    block_size: Annotated[int, option(ExportConfig, "block_size", metavar="N")] = default_of(
        ExportConfig, "block_size"
    ),
    symmetric: Annotated[
        bool, option(ExportConfig, "symmetric", "--symmetric", metavar="")
    ] = default_of(ExportConfig, "symmetric"),
    head_bits: Annotated[int, option(ExportConfig, "head_bits", metavar="N")] = default_of(
        ExportConfig, "head_bits"
    ),
    bits: Annotated[float | None, option(ExportConfig, "bits", metavar="N")] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A task's folder or a text: what int4 is to lose least on, by AWQ.",
        ),
    ] = None,
    template: Annotated[str | None, option(ExportConfig, "template", metavar="NAME")] = None,
    seed: Annotated[int, option(ExportConfig, "seed", metavar="N")] = default_of(
        ExportConfig, "seed"
    ),
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Replace an existing bundle.")
    ] = False,
    json: Json = False,
) -> None:
    """Turn a Hugging Face or GGUF checkpoint into a bundle, and check it against the original."""
    with reaching("output", output):
        exists = output.exists()
    if exists and not force:
        raise InputError(f"{output} exists; choose another name, or replace it with --force")

    from tightrope.export.export import export as export_checkpoint

    config = ExportConfig(
        precision=precision,
        slots=slots,
        kv_cache=kv_cache,
        prefill_chunk=prefill_chunk,
        selectors=None if selector is None else tuple(selector),
        schedules=tuple(schedule or ()),
        resolutions=None if resolution is None else tuple(resolution),
        tower_precision=tower_precision,
        prefill_precision=prefill_precision,
        block_size=block_size,
        symmetric=symmetric,
        head_bits=head_bits,
        bits=bits,
        template=template,
        seed=seed,
    )
    samples = None if calibrate is None else calibration_of(calibrate)
    with progress_on_terminal() as progress:
        summary = export_checkpoint(
            checkpoint,
            output,
            config,
            calibration=samples,
            progress=progress,
            overwrite=force,
        )
    if json:
        print_json(summary.to_dict())
    else:
        print_pairs("Exported", summary_rows(summary))


def calibration_of(path: Path) -> list[Sample]:
    """A calibration set: a task's questions with their answers, or a text."""
    from tightrope.export.calibration import Sample, read_text
    from tightrope.profiles.task.task import read_task

    with reaching("calibrate", path):
        if not path.is_dir():
            return read_text(path)
    return [
        Sample(
            messages=(
                *item.messages,
                *({"role": "assistant", "content": answer} for answer in item.answers[:1]),
            ),
            image=item.images[0] if item.images else None,
        )
        for item in read_task(path).items
    ]


def summary_rows(summary: ExportSummary) -> list[tuple[str, str]]:
    """Name and text of each line that an export prints."""
    return [
        ("bundle", summary.bundle),
        ("family", summary.family),
        ("precision", summary.precision),
        ("files", f"{summary.files}, {summary.total_bytes / 1e6:.1f} MB"),
        ("slots", slots_text(summary)),
        ("selectors", ", ".join(summary.selectors) or "none: a text model"),
        ("schedules", ", ".join(summary.schedules) or "none"),
        *weight_rows(summary.weights),
        *tower_rows(summary.tower_int8),
        *parity_rows(summary.parity),
        *(("note", note) for note in summary.notes),
        ("took", f"{summary.seconds:.1f} s"),
    ]


def slots_text(about: ExportSummary | Manifest) -> str:
    """How many slots there are, and what they hold."""
    kind = "" if about.kv_cache == FLOAT_SLOTS else f" in {about.kv_cache}"
    return f"{about.slots}{kind}, prefill in chunks of {about.prefill_chunk}"


def weight_rows(groups: Mapping[str, WeightGroup]) -> list[tuple[str, str]]:
    """How each part of the model is stored, what it takes, and its logit error by itself."""
    rows = []
    for name, group in groups.items():
        kinds = ", ".join(f"{count} of {how}" for how, count in group.stored.items())
        error = "" if group.logit_error is None else f"; logit error {figure(group.logit_error)}"
        rows.append((f"weights: {name}", f"{bytes_text(group.bytes)}: {kinds}{error}"))
    return rows


def tower_rows(tower: TowerInt8 | None) -> list[tuple[str, str]]:
    """How far a tower in int8 lies from itself in float32; nothing where it is in float32."""
    if tower is None:
        return []
    shares = [f"{name} keeps {share:.0%} of the same" for name, share in tower.agreement.items()]
    return [("tower in int8", ", ".join([f"visual tokens differ by {tower.embeds:.2%}", *shares]))]


def parity_rows(parity: Parity | None) -> list[tuple[str, str]]:
    """What the check against Hugging Face found, in words."""
    if parity is None:
        return []
    rows = [
        ("parity: logits against Hugging Face", figure(parity.logits)),
        ("parity: allowed", figure(parity.allowed)),
        ("parity: greedy tokens", f"{parity.equal_tokens} of {parity.tokens} equal"),
    ]
    for name, value in (
        ("int8 activations against float32 (relative)", parity.int8_activations),
        ("prompts in int8 against float32 (relative)", parity.int8_prefill),
        ("tower in int8 against float32 (relative)", parity.int8_tower),
        ("slots in int8 against float32 (relative)", parity.int8_slots),
        ("weights as written against the checkpoint (relative)", parity.stored_weights),
        ("that model against the GGUF file's own tensors (relative)", parity.read_weights),
    ):
        if value is not None:
            rows.append((f"parity: {name}", figure(value)))
    if parity.overflow is not None:
        rows.append(("parity: beyond float16", parity.overflow))
    return rows
