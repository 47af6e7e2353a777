"""AIPerf beside us: an environment of its own, made once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "aiperf"
REQUIREMENT = "aiperf==0.13.0"


def make() -> Path:
    """Its command; installs the package the first time, a minute or two."""
    command = FOLDER / "bin" / "aiperf"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
        pip = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "--quiet", REQUIREMENT]
        subprocess.run(pip, check=True)
    return command
