"""What is predicted of Qwen3-VL-2B on Jetsons, beside NVIDIA's own table: close, and on record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def prediction(
    module_of: Callable[[Path], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return module_of(BENCHMARKS / "board_prediction.py")


def test_what_was_published_is_met_within_a_factor_of_two(prediction: ModuleType) -> None:
    for row in prediction.compared():
        ratio = row["predicted_by_published"]
        assert all(0.5 < value < 2 for value in ratio.values()), row


def test_the_record_is_what_the_program_says_today(prediction: ModuleType) -> None:
    recorded = json.loads((BENCHMARKS / "results" / "board_prediction.json").read_text("utf-8"))
    assert recorded["rows"] == prediction.compared() and recorded["proof_level"] == 0
