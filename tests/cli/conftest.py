from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command() -> Command:
    """The real command, in a process of its own."""

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TIGHTROPE_DEBUG": "", "COLUMNS": "100"}
        return subprocess.run(
            [sys.executable, "-m", "tightrope", *arguments],
            cwd=ROOT,
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
