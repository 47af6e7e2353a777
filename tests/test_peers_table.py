"""The README's tables of peers are those that were recorded."""

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("peers_table")


def test_the_readme_has_the_figures_of_the_records(table: Any) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table.BEGIN + table.tables() + table.END in text


def test_a_peer_that_was_not_asked_has_an_empty_cell(table: Any) -> None:
    def spread(median: float) -> dict[str, float]:
        return {"median": median, "low": median - 1, "high": median + 1}

    record = {
        "rows": {
            "tightrope, all visual tokens": {"first token": spread(2345)},
            "tightrope, 25 %": {"first token": spread(150)},
            "other, all visual tokens": {"first token": spread(50)},
        },
        "bits a weight": {"tightrope": 4.5, "other": 16.0},
        "versions": {"tightrope": "0.1.0", "other": "7"},
    }
    assert table.table("shape", record).splitlines() == [
        "| shape | bits a weight | all visual tokens, first token | 25 %, first token |",
        "| --- | --- | --- | --- |",
        "| tightrope 0.1.0 | 4.5 | 2.35 s (2.34 s to 2.35 s) | 150 (149 to 151) |",
        "| other 7 | 16.0 | 50.0 (49.0 to 51.0) |  |",
    ]
