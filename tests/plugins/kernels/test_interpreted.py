"""Whole calls of the ops that have kernels, in Triton's interpreter, beside their references."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILES = sorted(HERE.parent.glob("*/kernel_cases.py"))
FARTHEST = 2e-3
"""Share of the largest number, where outputs are halves; of whole numbers none may differ."""


def test_kernels_compute_what_their_references_do(interpreted: Callable[..., Any]) -> None:
    found = interpreted(HERE / "interpreted.py", *map(str, FILES))
    assert len(found) >= 20 * len(FILES)
    assert not {name: case for name, case in found.items() if max(case.values()) > FARTHEST}
