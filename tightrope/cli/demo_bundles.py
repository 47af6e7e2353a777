"""The demo's bundles: exported on the first run, found again on the next."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tightrope
from tightrope.bundle import MANIFEST, Bundle
from tightrope.cli.export import summary_rows
from tightrope.cli.output import print_pairs, progress_on_terminal
from tightrope.errors import BundleError

CACHE = Path(".cache/demo")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoBundle:
    """What one bundle of the demo is made from, and how."""

    checkpoint: Path
    """A folder or a GGUF file in the repository."""
    name: str
    precision: str = "fp16"
    schedules: tuple[str, ...] = ()
    resolutions: tuple[int, ...] = ()
    """Of images; none: the checkpoint's own."""
    usual_seconds: int
    """About how long its export takes on two cores."""

    @property
    def path(self) -> Path:
        """Where the bundle lies or will lie."""
        return CACHE / f"{self.name}.bundle"


def export_once(wanted: DemoBundle) -> Path:
    """The path of the bundle, exported unless a fitting one is there; says which it was."""
    if is_fitting(wanted):
        print(f"{wanted.path} is there from an earlier run (delete {CACHE} to export again)")
        return wanted.path
    from tightrope.export.config import ExportConfig
    from tightrope.export.export import export

    print(
        f"Exporting {wanted.checkpoint}, {wanted.precision}: "
        f"about {wanted.usual_seconds} s on two cores",
        flush=True,
    )
    config = ExportConfig(
        precision=wanted.precision,
        schedules=wanted.schedules,
        resolutions=wanted.resolutions or None,
    )
    with progress_on_terminal() as progress:
        summary = export(wanted.checkpoint, wanted.path, config, progress=progress, overwrite=True)
    # What was measured of the bundle before it; never a folder that TIGHTROPE_STATE names.
    shutil.rmtree(wanted.path.with_suffix(".state"), ignore_errors=True)
    print_pairs("Exported", summary_rows(summary))
    return wanted.path


def is_fitting(wanted: DemoBundle) -> bool:
    """Whether the bundle is whole, as wanted, and younger than the checkpoint and the exporter."""
    try:
        manifest = Bundle.open(wanted.path).manifest
    except BundleError:
        return False
    newest = max(file.stat().st_mtime for file in _made_from(wanted.checkpoint))
    return (
        manifest.exporter.get("tightrope") == tightrope.__version__
        and manifest.source.name == wanted.checkpoint.name
        and manifest.precision == wanted.precision
        and tuple(manifest.schedules) == wanted.schedules
        and set(wanted.resolutions) <= set(manifest.vision.resolutions if manifest.vision else ())
        and (wanted.path / MANIFEST).stat().st_mtime >= newest
    )


def _made_from(checkpoint: Path) -> Iterator[Path]:
    """The files that decide what is in a bundle: a clone's code changes within one version."""
    yield from checkpoint.iterdir() if checkpoint.is_dir() else [checkpoint]
    package = Path(tightrope.__file__).parent
    yield from package.glob("*.py")
    for part in ("export", "inputs", "interface", "plugins"):
        yield from (package / part).rglob("*.py")
