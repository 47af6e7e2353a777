"""`tightrope frontier show --live`, on a real bundle that was asked something."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

import tightrope as tr
from tightrope.cli import app
from tightrope.errors import InputError, ProfileError
from tightrope.latency_file import LatencyKey, write_latency
from tightrope.live_file import Agreement, Entry, append, live_file, read_requests
from tightrope.quality_file import point_text
from tightrope.runtime import live
from tightrope.runtime.key import latency_key

PAGE = Path(__file__).resolve().parents[2] / "docs" / "live.md"
HOW = ("--backend", "onnxruntime", "--threads", "1")
ASKED = 12


@pytest.fixture
def asked(
    bundle: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    synthetic: ModuleType,
) -> tuple[str, LatencyKey]:
    """A bundle that was measured and then asked a few questions, and the key of this machine."""
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(live, "WRITER", live.Writer(batch_s=0.01))
    model = tr.load(bundle("llama"), "onnxruntime", 1)
    key = latency_key(model.bundle, model.backend)
    # Of a machine so slow that every one is faster.
    slow = replace(synthetic.MODEL, stepping=replace(synthetic.MODEL.stepping, token_ms=1e5))
    write_latency(model.bundle, replace(synthetic.RECORD, key=key, model=slow))
    for number in range(ASKED):
        model.generate(f"what is {number} ?", max_tokens=4, ignore_eos=True)
    while len(read_requests(live_file(model.bundle), key)) < ASKED:
        live.WRITER.flush()
        time.sleep(0.01)
    return str(model.bundle.path), key


def invoked(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["frontier", "show", *arguments, "--live", *HOW])


def test_people_read_drift_and_agreement(asked: tuple[str, LatencyKey]) -> None:
    folder, key = asked
    result = invoked(folder)
    assert result.exit_code == 0, result.output
    for words in (
        f"{ASKED} kept, {ASKED - 1} compared",
        "1 the first of their kind in a process",
        "times what was measured",
        "95 % interval",
        "shadow=0.01",
    ):
        assert words in result.stdout, words

    assert re.search(r"\ndecode .* faster\n", result.stdout)
    point = point_text(tr.OperatingPoint(kv_budget=64))
    agreement = Agreement(point=point, same=True, token_agreement=1.0)
    append(live_file(tr.load(folder, live=False).bundle), key, [Entry(time_s=1.0, value=agreement)])
    told = invoked(folder).stdout
    assert "Beside the unpruned answer" in told and "64 slots" in told


def test_programs_read_one_object_that_the_page_describes(asked: tuple[str, LatencyKey]) -> None:
    folder, key = asked
    told = json.loads(invoked(folder, "--json").stdout)
    assert told["schema"] == 1 and told["key"]["board"] == key.board
    assert (told["requests"], told["compared"]) == (ASKED, ASKED - 1)
    assert told["newest_s"] >= 0 and told["pace"] > 0
    stages = {stage["stage"]: stage for stage in told["stages"]}
    low, high = stages["total"]["interval_ms"]
    assert low <= stages["total"]["difference_ms"] <= high < 0
    assert stages["vision"]["ratio"] is None
    described = set(re.findall(r"`([a-z_.]+)`", PAGE.read_text(encoding="utf-8")))
    for name in (*told, *(f"stages.{name}" for name in stages["total"])):
        assert name in described, f"{name} is not in {PAGE.name}"


def test_without_requests_it_says_when_they_are_kept(
    asked: tuple[str, LatencyKey], synthetic: ModuleType
) -> None:
    folder, key = asked
    file = live_file(tr.load(folder, live=False).bundle)
    file.unlink()
    result = invoked(folder)
    assert isinstance(result.exception, ProfileError)
    assert "has no requests of" in str(result.exception) and "live=False" in str(result.exception)
    append(file, replace(key, power_mode="15W"), [])
    assert "there is something for" in str(invoked(folder).exception)


def test_without_a_latency_file_it_names_the_command(asked: tuple[str, LatencyKey]) -> None:
    folder, _ = asked
    (file,) = live_file(tr.load(folder, live=False).bundle).parent.glob("latency/*.json")
    file.unlink()
    result = invoked(folder)
    assert isinstance(result.exception, ProfileError)
    assert "tightrope profile" in str(result.exception)


def test_it_takes_no_question(asked: tuple[str, LatencyKey]) -> None:
    for more in (("--prompt", "x"), ("--slo", "ttft:1s"), ("--task", "x"), ("--image", "x")):
        result = invoked(asked[0], *more)
        assert isinstance(result.exception, InputError), more
        assert "--live tells of requests that came" in str(result.exception)
