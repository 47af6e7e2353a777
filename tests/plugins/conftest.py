"""What the tests of kernels share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def interpreted() -> Callable[..., Any]:
    """`interpreted(program, ...)`: what it prints as JSON with kernels in Triton's interpreter.

    A process of its own: what Triton makes of a kernel is decided when its file is imported.
    """
    pytest.importorskip("triton", reason="needs the extra [kernels]")
    pytest.importorskip("torch", reason="Triton's interpreter takes torch's tensors")

    def run(program: Path, *arguments: str) -> Any:
        command = [sys.executable, str(program), *arguments]
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return run
