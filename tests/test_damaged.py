"""A few of the damaged and hostile inputs that `benchmarks/damaged.py` tries by the thousand."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="checkpoints are opened with it")

ROOT = Path(__file__).parents[1]
SEED, COUNT = 71, 60
"""None of those that the benchmark records."""


def test_damaged_inputs_come_to_answers_or_to_errors_of_ours() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "damaged.py"), "--no-record"]
    options = ["--cases", str(COUNT), "--seed", str(SEED), "--processes", "2"]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    figures = ast.literal_eval(ran.stdout.splitlines()[-1])
    ended = {name for counts in figures["ended"].values() for name in counts}
    assert ended >= {"answered", "InputError", "BundleError", "UnsupportedModel"}
    assert sum(sum(counts.values()) for counts in figures["ended"].values()) == COUNT
