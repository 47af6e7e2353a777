"""Export opens what it wrote, as a user would: in a process of its own, with the runtime alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tightrope.bundle import SELFTEST, FileEntry, Manifest, sha256_of
from tightrope.errors import UnsupportedModel

_RECORDER = "tightrope.runtime.selftest.record"


def record(folder: Path, manifest: Manifest) -> Manifest:
    """Let the runtime answer from the bundle in `folder` and keep what it said in `selftest.npz`.

    Returns the manifest with the new file. Raises UnsupportedModel with the runtime's own words
    where it cannot open the bundle or answer from it.
    """
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", _RECORDER, str(folder)]
        done = subprocess.run(
            command,
            env={**os.environ, "TIGHTROPE_STATE": state},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    file = folder / SELFTEST
    if done.returncode or not file.is_file():
        words = done.stderr.replace(f"{folder}{os.sep}", "").strip().splitlines() or ["no words"]
        raise UnsupportedModel(
            f"the bundle was written but does not open or answer ({words[-1]}): this checkpoint "
            "cannot be exported as it is"
        )
    entry = FileEntry(bytes=file.stat().st_size, sha256=sha256_of(file))
    return replace(manifest, files=dict(sorted({**manifest.files, SELFTEST: entry}.items())))
