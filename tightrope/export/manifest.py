"""The manifest of a bundle whose other files are written."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from tightrope import bundle as bundles
from tightrope.bundle import FileEntry, Manifest, Parity, SelectorInfo, Source
from tightrope.export.graphs.passes.linear import column_parts
from tightrope.export.graphs.write import Written
from tightrope.export.recipe import Recipe
from tightrope.export.selectors import SELECTORS
from tightrope.interface.onnx import OWN_OPSET

MINIMUM_ONNXRUNTIME = "1.23"


def describe(
    recipe: Recipe,
    windows: tuple[int, ...],
    written: Written,
    parity: Parity,
    folder: Path,
) -> Manifest:
    """Everything in bundle.json.

    windows: of the layers. written: the graphs.
    """
    checkpoint, config, precision = recipe.checkpoint, recipe.config, recipe.precision
    files = {
        file.relative_to(folder).as_posix(): FileEntry(
            bytes=file.stat().st_size, sha256=bundles.sha256_of(file)
        )
        for file in sorted(path for path in folder.rglob("*") if path.is_file())
    }
    return Manifest(
        format=bundles.FORMAT,
        family=checkpoint.family.model_type,
        dims=recipe.dims,
        positions=checkpoint.family.positions,
        opset_version=OWN_OPSET,
        precision=config.precision,
        activations=precision.activations,
        embeddings=precision.storage,
        slots=config.slots,
        kv_cache=config.kv_cache,
        prefill_chunk=recipe.prefill_chunk,
        minimum_onnxruntime=MINIMUM_ONNXRUNTIME,
        source=Source(
            name=Path(checkpoint.name).name,
            revision=checkpoint.revision(),
            licence=checkpoint.licence(),
        ),
        vision=None if recipe.vision is None else recipe.vision.info,
        windows=windows if any(windows) else (),
        max_positions=recipe.max_positions,
        head_columns=_widest(recipe.dims.vocab_size),
        selectors={
            name: SelectorInfo(
                signals=SELECTORS[name].signals, text_guided=SELECTORS[name].text_guided
            )
            for name in recipe.selectors
        },
        schedules=recipe.schedules,
        standard_ops=written.operators,
        plugins=written.plugins,
        no_plugins=written.no_plugins,
        exporter={name: metadata.version(name) for name in ("tightrope", "torch", "transformers")},
        parity=parity,
        files=files,
    )


def _widest(vocabulary: int) -> int | None:
    """Tokens of the widest product of the head, where it is cut."""
    first, *others = column_parts(vocabulary)
    return first.stop if others else None
