"""`export`: a checkpoint becomes a bundle, or nothing is left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tightrope import bundle as bundles
from tightrope.bundle import Manifest
from tightrope.checks import check_path, check_type
from tightrope.errors import BundleError, InputError
from tightrope.export import groups, parity, selftest, tower_int8
from tightrope.export.calibration import Sample
from tightrope.export.checkpoint import Checkpoint, open_checkpoint
from tightrope.export.config import ExportConfig, ExportSummary
from tightrope.export.foreign import exporting
from tightrope.export.graphs.traces import trace_all, windows_of
from tightrope.export.graphs.write import write_graphs
from tightrope.export.host_files import write_host_files, write_json
from tightrope.export.manifest import describe
from tightrope.export.own_codes import own_codes
from tightrope.export.recipe import plan
from tightrope.export.weights import WeightFile
from tightrope.folders import finished_folder, reaching
from tightrope.interface.names import GraphName
from tightrope.progress import Progress, part, silent


def export(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    config: ExportConfig | None = None,
    *,
    calibration: Sequence[Sample] | None = None,
    progress: Progress = silent,
    overwrite: bool = False,
) -> ExportSummary:
    """Write the bundle `output` from a Hugging Face folder, a hub id or a GGUF file.

    calibration: prompts that the model is likely to see, for an int4 export of float weights. The
    folder appears when all of it is written and checked; an export that fails or is
    interrupted leaves nothing. Raises UnsupportedModel, InputError, and BundleError where the
    disk takes no more.
    """
    started = time.perf_counter()
    config = ExportConfig() if config is None else config
    check_type("config", config, ExportConfig, "an ExportConfig, or None")
    target = check_path("output", output, "the path of the folder to write")
    with reaching("output", target):
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists; choose another name, or ask for it to be replaced")
        if target.exists() and not (target / bundles.MANIFEST).is_file():
            raise InputError(f"{target} is no bundle and is not replaced; choose another name")
    opened = open_checkpoint(
        os.fspath(checkpoint) if isinstance(checkpoint, os.PathLike) else checkpoint
    )
    with finished_folder(target, BundleError) as folder, exporting(opened.name):
        manifest, notes = _write(opened, config, calibration, folder, progress)
    sizes = [entry.bytes for entry in manifest.files.values()]
    return ExportSummary(
        bundle=str(target),
        family=manifest.family,
        precision=manifest.precision,
        slots=manifest.slots,
        kv_cache=manifest.kv_cache,
        prefill_chunk=manifest.prefill_chunk,
        selectors=tuple(manifest.selectors),
        schedules=tuple(manifest.schedules),
        files=len(sizes),
        total_bytes=sum(sizes),
        seconds=time.perf_counter() - started,
        parity=manifest.parity,
        tower_int8=manifest.tower_int8,
        weights=manifest.weights,
        notes=tuple(notes),
    )


def _write(
    checkpoint: Checkpoint,
    config: ExportConfig,
    calibration: Sequence[Sample] | None,
    folder: Path,
    progress: Progress,
) -> tuple[Manifest, list[str]]:
    """Everything of a bundle, into `folder`; returns its manifest and notes for the summary."""
    progress("reading the checkpoint", 0.0)
    recipe = plan(checkpoint, config)
    # Before tracing, which takes longer: a damaged checkpoint is told at once.
    progress("loading weights", 0.02)
    late = checkpoint.late_model()
    late, rounding, said = own_codes(recipe, late, calibration, part(progress, 0.04, 0.1))
    traces = trace_all(recipe, part(progress, 0.1, 0.55))
    graphs = folder / "graphs"
    graphs.mkdir()
    with WeightFile(graphs, late.parameters, recipe.precision, rounding, late.published) as weights:
        written = write_graphs(recipe, traces, graphs, weights, part(progress, 0.55, 0.8))
    progress("writing embeddings and texts", 0.8)
    write_host_files(recipe, late.model, weights, folder)
    tower, notes = tower_int8.gate(recipe, late, weights, folder, written.trial)
    progress("measuring what each part costs", 0.82)
    parts = groups.measure(recipe, late, weights, folder)
    progress("checking parity", 0.85)
    taken = None if tower is None else written.trial
    figures = parity.measure(recipe, late, weights, folder, taken)
    if taken is not None:
        taken.replace(folder / GraphName("host", "vision").file)
    progress("hashing", 0.97)
    described = describe(recipe, windows_of(traces), written, figures, folder)
    manifest = replace(described, weights=parts, tower_int8=tower)
    write_json(folder / bundles.MANIFEST, manifest.to_dict())
    progress("opening what was written", 0.98)
    manifest = selftest.record(folder, manifest)
    write_json(folder / bundles.MANIFEST, manifest.to_dict())
    progress("done", 1.0)
    if figures.overflow is not None:
        notes.append(
            f"{figures.overflow}, beyond float16: TensorRT and onnxruntime-cuda refuse this "
            "bundle; export with precision fp32 for them"
        )
    return manifest, recipe.notes(late.model) + said + weights.notes() + written.notes() + notes
