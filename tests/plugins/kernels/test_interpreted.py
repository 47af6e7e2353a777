"""Whole calls of the ops that have kernels, in Triton's interpreter, beside their references."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(HERE.parent.glob("*/kernel_cases.py"))
FARTHEST = 2e-3
"""Share of the largest number, where outputs are halves; of whole numbers none may differ."""


def test_kernels_compute_what_their_references_do() -> None:
    pytest.importorskip("triton", reason="needs the extra [kernels]")
    pytest.importorskip("torch", reason="Triton's interpreter takes torch's tensors")
    command = [sys.executable, str(HERE / "interpreted.py"), *map(str, FILES)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert len(found) >= 20 * len(FILES)
    assert not {name: case for name, case in found.items() if max(case.values()) > FARTHEST}
