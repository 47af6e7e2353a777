"""`export`: a checkpoint becomes a bundle, or nothing is left behind."""

from __future__ import annotations

import os
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from tightrope import bundle as bundles
from tightrope.errors import BundleError, InputError
from tightrope.export import parity
from tightrope.export.checkpoint import Checkpoint, open_checkpoint, parameters_of
from tightrope.export.choices import Choices, choose, notes_on
from tightrope.export.config import ExportConfig, ExportSummary
from tightrope.export.graphs import write_graphs
from tightrope.export.host_files import write_host_files, write_json
from tightrope.export.selectors import SELECTORS
from tightrope.export.traces import Progress, trace_all
from tightrope.export.weights import WeightFile
from tightrope.folders import finished_folder
from tightrope.plugins.schema import OPSET_VERSION

MINIMUM_ONNXRUNTIME = "1.23"


def export(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    config: ExportConfig | None = None,
    *,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> ExportSummary:
    """Write the bundle `output` from a Hugging Face folder, a hub id or a GGUF file.

    progress: called with what is being done and the share that is done, 0 to 1.
    The folder appears when all of it is written and checked; an export that fails or is
    interrupted leaves nothing. Raises UnsupportedModel, InputError, and BundleError where the
    disk takes no more.
    """
    started = time.perf_counter()
    config = ExportConfig() if config is None else config
    if not isinstance(config, ExportConfig):
        raise InputError(f"config is {config!r}; accepted: an ExportConfig, or None")
    if not isinstance(output, (str, os.PathLike)) or not os.fspath(output):
        raise InputError(f"output is {output!r}; accepted: the path of the folder to write")
    target = Path(output)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; choose another name, or ask for it to be replaced")
    if target.exists() and not (target / bundles.MANIFEST).is_file():
        raise InputError(f"{target} is no bundle and is not replaced; choose another name")
    source = open_checkpoint(
        os.fspath(checkpoint) if isinstance(checkpoint, os.PathLike) else checkpoint
    )
    with finished_folder(target, BundleError) as folder:
        manifest, notes = _write(source, config, folder, progress or (lambda *_: None))
    sizes = [entry["bytes"] for entry in manifest.files.values()]
    return ExportSummary(
        bundle=str(target),
        family=manifest.family,
        precision=manifest.precision,
        slots=manifest.slots,
        prefill_chunk=manifest.prefill_chunk,
        selectors=tuple(manifest.selectors),
        schedules=tuple(manifest.schedules),
        files=len(sizes),
        total_bytes=sum(sizes),
        seconds=time.perf_counter() - started,
        parity=manifest.parity,
        notes=tuple(notes),
    )


def _write(
    source: Checkpoint, config: ExportConfig, folder: Path, progress: Progress
) -> tuple[bundles.Manifest, list[str]]:
    """Everything of a bundle, into `folder`; returns its manifest and notes for the summary."""
    progress("reading the checkpoint", 0.0)
    tokenizer = source.tokenizer()
    choices = choose(source, config, tokenizer)
    notes = notes_on(source, config, choices)
    # Before tracing, which takes longer: a damaged checkpoint is told at once.
    progress("loading weights", 0.02)
    model = source.load_model()
    traces, left = trace_all(source, config, choices, _part(progress, 0.1, 0.55))
    wide = config.precision == "fp32"
    graphs = folder / "graphs"
    graphs.mkdir()
    read = parameters_of(model).__getitem__
    with WeightFile(graphs, read, config.precision, config.block_size) as weights:
        operators = write_graphs(
            traces,
            graphs,
            weights,
            wide=wide,
            standard_prefill=choices.standard_prefill,
            progress=_part(progress, 0.55, 0.8),
        )
    progress("writing embeddings and texts", 0.8)
    kind = "float32" if wide else "float16"
    write_host_files(folder, source, choices, model, tokenizer, weights, kind)
    progress("checking parity", 0.85)
    figures = parity.measure(folder, source, config, choices, model, weights)
    progress("hashing", 0.97)
    manifest = _manifest(folder, source, config, choices, operators, figures)
    write_json(folder / bundles.MANIFEST, manifest.to_dict())
    progress("done", 1.0)
    return manifest, notes + left


def _part(progress: Progress, start: float, end: float) -> Progress:
    return lambda what, share: progress(what, start + share * (end - start))


def _manifest(
    folder: Path,
    source: Checkpoint,
    config: ExportConfig,
    choices: Choices,
    operators: dict[str, dict[str, str]],
    figures: dict[str, Any],
) -> bundles.Manifest:
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        files[file.relative_to(folder).as_posix()] = {
            "bytes": file.stat().st_size,
            "sha256": bundles.sha256_of(file),
        }
    kind = "float32" if config.precision == "fp32" else "float16"
    return bundles.Manifest(
        format=bundles.FORMAT,
        family=source.family.name,
        dims=choices.dims,
        positions="ordinal",
        opset_version=OPSET_VERSION,
        precision=config.precision,
        activations=kind,
        embeddings=kind,
        slots=config.slots,
        prefill_chunk=choices.prefill_chunk,
        standard_prefill=choices.standard_prefill,
        minimum_onnxruntime=MINIMUM_ONNXRUNTIME,
        vision=choices.vision,
        selectors={
            name: {
                "signals": list(SELECTORS[name].signals),
                "text_guided": SELECTORS[name].text_guided,
                "graph": SELECTORS[name].body is not None,
            }
            for name in choices.selectors
        },
        schedules=choices.schedules,
        standard_ops=operators,
        exporter={name: metadata.version(name) for name in ("tightrope", "torch", "transformers")},
        seed=config.seed,
        source={
            "name": Path(source.name).name,
            "revision": source.revision(),
            "licence": source.licence(),
        },
        parity=figures,
        files=files,
    )
