"""A few of the damaged and hostile inputs that `benchmarks/damaged.py` tries by the thousand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="checkpoints are opened with it")

ROOT = Path(__file__).parents[1]
FIRST, COUNT = 5000, 72
"""None of those that the benchmark records."""


def test_damaged_inputs_come_to_answers_or_to_errors_of_ours(
    bundle: Callable[[str], Path],
    module_of: Callable[[Path], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    damaged = module_of(ROOT / "benchmarks" / "damaged.py")
    inputs = damaged.Inputs(bundle("reference"), tmp_path)
    for undamaged in (inputs.checkpoint, inputs.gguf):
        damaged.opened(undamaged)
    found = [damaged.attempt(number, inputs) for number in range(FIRST, FIRST + COUNT)]
    assert not [one for one in found if one["came"].startswith("foreign")]
    assert set(Counter(one["kind"] for one in found).values()) == {COUNT // 6}
    assert {"served", "InputError", "BundleError", "UnsupportedModel"} <= {
        one["came"] for one in found
    }
