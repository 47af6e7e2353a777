"""`tightrope profile` and `run --dry-run`, as they print for people and for programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import tightrope
from tightrope.cli import app
from tightrope.latency_file import read_latency
from tightrope.point import OperatingPoint
from tightrope.runtime.count import Count


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synthetic: Any) -> Any:
    """A bundle of which nothing but its place is known, on a model that is never asked."""
    opened = SimpleNamespace(path=tmp_path / "x.bundle")
    work = replace(synthetic.text(584, completion_tokens=16), text_tokens=9)
    counted = Count(
        prompt_tokens=584,
        cached_tokens=0,
        visual_tokens=576,
        visual_tokens_kept=144,
        completion_tokens=16,
        occupied_slots=167,
        slot_bytes=1 << 20,
        point=OperatingPoint(),
        backend="onnxruntime",
        work=work,
        prediction=synthetic.MODEL.predict(work),
        notes=("selector mine was not measured",),
    )
    model = SimpleNamespace(bundle=opened, count=lambda *arguments, **options: counted)
    monkeypatch.setitem(vars(tightrope), "load", lambda *arguments, **options: model)
    monkeypatch.setattr(
        "tightrope.profiles.latency.profile.profile_latency",
        lambda *arguments, **options: synthetic.RECORD,
    )
    return opened


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result


def test_a_profile_is_told_and_kept(bundle: Any, synthetic: Any) -> None:
    told = run("profile", str(bundle.path), "--latency-only").stdout
    for words in (
        "400 of 29 kinds in 118 s",
        "25W",
        "decode PNG",
        "1 + 30 · megapixels + 2 · MB",
        "vision at 336",
        "1 + 0.0001 · V · K",
        "4 + 0.002 · slots",
        "prefill, inside",
        "error of the time to the first token",
        "5.5 %",
        "1.09",
        "orin_nano_8gb-25w-onnxruntime-2.json",
    ):
        assert words in told, words
    assert read_latency(bundle, synthetic.KEY) == synthetic.RECORD


def test_a_profile_for_programs_is_the_file(bundle: Any, synthetic: Any) -> None:
    told = json.loads(run("profile", str(bundle.path), "--latency-only", "--json").stdout)
    assert told == json.loads(json.dumps(synthetic.RECORD.to_dict()))


def test_a_dry_run_tells_what_would_be_spent_and_answers_nothing(bundle: Any) -> None:
    told = run("run", str(bundle.path), "what is it", "--dry-run").stdout
    for words in ("576", "144", "167", "1.0 MiB", "first token", "p99", "image decode"):
        assert words in told, words
    assert "selector mine was not measured" in told


def test_a_dry_run_for_programs_has_stages_and_percentiles(bundle: Any) -> None:
    told = json.loads(run("run", str(bundle.path), "what is it", "--dry-run", "--json").stdout)
    assert told["schema"] == 1
    assert set(told["prediction"]) == {"stages", "ttft", "tpot", "total", "unmeasured"}
    assert told["prediction"]["ttft"]["p99_ms"] > told["prediction"]["ttft"]["p50_ms"]
    assert told["work"]["text_tokens"] == 9


def test_without_a_task_latency_alone_is_measured_and_that_is_said(bundle: Any) -> None:
    told = run("profile", str(bundle.path)).stdout
    assert "400 of 29 kinds" in told
    assert "latency alone was measured: quality needs questions" in told
    assert "latency alone" not in run("profile", str(bundle.path), "--latency-only").stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--quality-only",), "--quality-only needs questions"),
        (("--quality-only", "--latency-only"), "exclude each other"),
        (("--quality-only", "--task", "no-such-folder"), "'no-such-folder' is not a folder"),
        (("--task", "t", "--points", "0"), "points is 0"),
        (("--task", "t", "--minutes", "0"), "minutes is 0"),
    ],
)
def test_a_wrong_choice_is_told_before_anything_is_opened(
    bundle: Any, flags: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(app, ["profile", str(bundle.path), *flags])
    assert message in str(result.exception)
