"""What an export prints: one line a fact, the same names as its JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tightrope.bundle import Parity, TowerInt8
from tightrope.cli.export import parity_rows, summary_rows
from tightrope.errors import InputError
from tightrope.export.config import PRECISIONS, ExportConfig, ExportSummary

PARITY = Parity(logits=2.5e-6, allowed=1e-4, equal_tokens=9, tokens=9)
SUMMARY = ExportSummary(
    bundle="x.bundle",
    family="llama",
    precision="int4",
    slots=64,
    kv_cache="float",
    prefill_chunk=32,
    selectors=(),
    schedules=(),
    files=8,
    total_bytes=2_500_000,
    seconds=1.25,
    parity=PARITY,
    notes=("something to know",),
)


def test_a_summary_is_json_with_a_schema_number() -> None:
    told = json.loads(json.dumps(SUMMARY.to_dict()))
    assert told["schema"] == 1
    assert told["parity"] == {
        "logits": 2.5e-6,
        "allowed": 1e-4,
        "equal_tokens": 9,
        "tokens": 9,
        "int8_activations": None,
        "int8_prefill": None,
        "int8_tower": None,
        "int8_slots": None,
        "stored_weights": None,
        "read_weights": None,
        "tolerance": None,
        "overflow": None,
    }


def test_people_read_every_figure_and_note() -> None:
    rows = dict(summary_rows(SUMMARY))
    assert rows["files"] == "8, 2.5 MB" and rows["took"] == "1.2 s"
    assert rows["selectors"] == "none: a text model"
    assert rows["parity: greedy tokens"] == "9 of 9 equal"
    assert rows["note"] == "something to know"


def test_a_tower_in_int8_says_how_far_it_lies_from_float32() -> None:
    tower = TowerInt8(embeds=0.021, agreement={"divprune": 0.97})
    rows = dict(summary_rows(replace(SUMMARY, tower_int8=tower)))
    assert rows["tower in int8"] == "visual tokens differ by 2.10%, divprune keeps 97% of the same"
    assert "tower in int8" not in dict(summary_rows(SUMMARY))


def test_figures_that_were_not_measured_have_no_line() -> None:
    assert parity_rows(None) == []
    assert len(parity_rows(PARITY)) == 3
    rounded = Parity(logits=1e-6, allowed=1e-4, equal_tokens=8, tokens=9, stored_weights=0.18)
    assert parity_rows(rounded)[-1][1] == "1.8e-01"
    read = Parity(logits=1e-6, allowed=1e-4, equal_tokens=9, tokens=9, read_weights=5e-6)
    assert parity_rows(read)[-1] == (
        "parity: that model against the GGUF file's own tensors (relative)",
        "5.0e-06",
    )


@pytest.mark.parametrize(
    ("name", "storage", "quantized"),
    [("fp32", "float32", False), ("fp16", "float16", False), ("int4", "float16", True)],
)
def test_a_precision_says_how_numbers_are_stored(name: str, storage: str, quantized: bool) -> None:
    precision = PRECISIONS[name]
    assert (precision.storage, precision.activations) == (storage, storage)
    assert precision.quantized is quantized


@pytest.mark.parametrize("block_size", [48, 32.0, True, "32"])
def test_a_block_is_32_64_or_128_weights(block_size: object) -> None:
    with pytest.raises(InputError, match=r"block_size is .*accepted: 32, 64, 128"):
        ExportConfig(block_size=block_size)  # type: ignore[arg-type]
