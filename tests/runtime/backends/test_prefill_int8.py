"""Prompts that multiply in int8 where the processor gains from it, and as ever elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs torch")

import tightrope as tr
from tightrope.bundle import Bundle
from tightrope.errors import InputError, UnsupportedModel
from tightrope.export import parity
from tightrope.export.config import ExportConfig
from tightrope.export.walking import Walk
from tightrope.jetson.probe import INT8_TILES, int8_products, read_cpu_flags
from tightrope.runtime.backends import onnxruntime as backend
from tightrope.runtime.selftest.steps import compare, stored

Find = Callable[[str], Path]
pytestmark = pytest.mark.skipif(
    int8_products(read_cpu_flags()) is None, reason="this processor has no products of int8"
)
TILES = read_cpu_flags() | {INT8_TILES}
PLAIN = read_cpu_flags() - {INT8_TILES}
PICTURE = np.random.default_rng(0).integers(0, 256, (56, 56, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def both(checkpoint: Find, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with either way to read prompts, and a schedule."""
    target = tmp_path_factory.mktemp("prefill") / "both.bundle"
    config = ExportConfig(
        precision="int4",
        prefill_precision="int8",
        prefill_chunk=32,
        selectors=("divprune",),
        schedules=("fastv",),
        resolutions=(28,),
    )
    summary = tr.export(checkpoint("llava"), target, config)
    assert summary.parity is not None
    found = summary.parity.int8_prefill
    assert found is not None and 0 < found < 0.1
    assert any("int8 by output for prompts" in how for how in summary.weights["mlp"].stored)
    return target


def opened(both: Path, flags: frozenset[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(backend, "read_cpu_flags", lambda: flags)
    return tr.load(both, threads=1, live=False)


def test_only_a_processor_with_the_units_reads_in_int8_and_others_say_so(
    both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = list(range(5, 45))
    notes = {}
    for flags in (TILES, PLAIN):
        model = opened(both, flags, monkeypatch)
        notes[flags is TILES] = model.generate(prompt, max_tokens=3, ignore_eos=True).notes
    assert notes[True] == ()
    assert notes[False] == ("prompts multiply in int4: this processor has no amx_int8",)


@pytest.mark.parametrize("flags", [TILES, PLAIN], ids=["int8", "int4"])
def test_either_way_passes_the_self_test(
    flags: frozenset[str], both: Path, parts_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = compare(parts_of(opened(both, flags, monkeypatch)), stored(Bundle.open(both)))
    assert found.passed, found


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (tr.OperatingPoint(kv_budget=40), 8),
        (tr.OperatingPoint(selector="fastv", keep=2), 1),
        (tr.OperatingPoint(selector="divprune", keep=2), 8),
    ],
    ids=["budget", "schedule", "selector"],
)
def test_budgets_schedules_and_chunks_hold_as_ever(
    point: tr.OperatingPoint, words: int, both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for flags in (TILES, PLAIN):
        model = opened(both, flags, monkeypatch)
        answers.append(
            model.generate("what " * words, [PICTURE], max_tokens=4, ignore_eos=True, point=point)
        )
    in_int8, in_int4 = answers
    assert in_int8.usage == in_int4.usage
    assert in_int8.point == in_int4.point


def test_a_model_that_does_not_bear_it_is_refused_with_the_figure(both: Path) -> None:
    exact = Walk(np.random.default_rng(0).normal(size=(9, 32)).astype(np.float32), [1] * 9)

    def times(factor: float) -> Callable[..., Walk]:
        return lambda graphs, forced: Walk(exact.logits * np.float32(factor), forced)

    near = parity._int8_prefill(times(1.05), exact, both)
    assert near.tokens == exact.tokens
    refused = r"prompts in int8: .*differ by 20\.0% .*10% is allowed; leave out --prefill"
    with pytest.raises(UnsupportedModel, match=refused):
        parity._int8_prefill(times(1.2), exact, both)


def test_floats_have_no_prompts_in_int8() -> None:
    with pytest.raises(InputError, match="accepted: precision int4"):
        ExportConfig(precision="fp16", prefill_precision="int8")
    with pytest.raises(InputError, match="prefill_precision"):
        ExportConfig(precision="int4", prefill_precision="fp8")
