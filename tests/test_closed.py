"""Files and folders that may not be entered, as a user without rights meets them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

NOBODY = 65534
PROGRAM = """
import os, sys
from pathlib import Path
import tightrope as tr
from tightrope.export.export import export
from tightrope.runtime.images import load_image
from tightrope.runtime.model import load
if os.geteuid() == 0:  # who may enter everything
    os.setgid({nobody}), os.setuid({nobody})
here = Path(sys.argv[1])
closed, out = here / "closed", here / "out"
attempts = {{
    "InputError": [
        lambda: load_image(closed / "x.png"),
        lambda: load_image(str(here / "shut")),
        lambda: load_image(here / "loop"),
        lambda: load_image(closed),
        lambda: export(here / "open", closed / "o"),
        lambda: export(here / "open", closed, overwrite=True),
        lambda: export(here / "open", here / "o"),
        lambda: export(here / "open", here / "shut" / "o"),
    ],
    "BundleError": [
        lambda: load(closed),
        lambda: load(closed / "y"),
        lambda: load(here / "a.bundle"),
        lambda: load(here / "loop"),
    ],
    "UnsupportedModel": [
        lambda: export(closed, out),
        lambda: export(closed / "m.gguf", out),
        lambda: export(here / "checkpoint", out),
        lambda: export(here / "shut.gguf", out),
        lambda: export(here / "loop", out),
    ],
}}
for kind, calls in attempts.items():
    for number, call in enumerate(calls):
        try:
            call()
            came = "nothing"
        except Exception as error:
            came = f"{{type(error).__name__}}: {{error}}"
        if not came.startswith(kind):
            print(kind, number, came)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that others may enter: pytest's own is closed to them."""
    folder = Path(tempfile.mkdtemp())
    for name in ("closed", "a.bundle", "checkpoint", "open"):
        (folder / name).mkdir()
    shut = ["shut", "shut.gguf", "a.bundle/bundle.json", "checkpoint/config.json"]
    for name in [*shut, "closed/x.png", "closed/bundle.json", "closed/config.json"]:
        (folder / name).write_text("{}")
    (folder / "open" / "config.json").write_text('{"model_type": "llama"}')
    (folder / "closed" / "m.gguf").write_bytes(b"GGUF")
    (folder / "loop").symlink_to(folder / "loop")
    for name in [*shut, "closed"]:
        (folder / name).chmod(0)
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    (folder / "closed").chmod(0o755)
    shutil.rmtree(folder)


def test_what_may_not_be_read_or_written_is_told(place: Path) -> None:
    package = Path(__file__).parents[1]
    command = [sys.executable, "-c", PROGRAM.format(nobody=NOBODY), str(place)]
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert not ran.stdout
