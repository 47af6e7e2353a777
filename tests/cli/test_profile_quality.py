"""`tightrope profile --task`, on a real bundle."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tightrope.cli import app
from tightrope.errors import InputError
from tightrope.profiles.task.task import write_task

Find = Callable[[str], Path]
SHORT = ("--max-tokens", "4", "--points", "4", "--threads", "1")
HOLD = """
import sys
from pathlib import Path
from tightrope.state import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("TIGHTROPE_STATE", str(folder))
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Path:
    folder = tmp_path / "colours"
    folder.mkdir()
    Image.new("RGB", (20, 16), "red").save(folder / "red.png")
    lines = [
        {"id": f"q{number}", "images": ["red.png"], "question": f"{number} ?", "answer": "red"}
        for number in range(6)
    ]
    write_task(folder, [*lines, {"id": "open", "question": "why ?"}])
    return folder


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_points_are_told_with_intervals_and_kept(bundle: Find, task: Path, state: Path) -> None:
    result = run("profile", bundle("llava"), "--task", task, "--quality-only", *SHORT)
    assert result.exit_code == 0, result.output
    (file,) = (state / "quality").iterdir()
    for words in ("colours", "84 px", "84 px, divprune 25%", "0.000 to", "1 questions without"):
        assert words in result.stdout, words
    assert "--latency-only" in result.stdout  # why points were compared by work
    assert file.name in result.stdout.replace("\n", "")
    again = run("profile", bundle("llava"), "--task", task, "--quality-only", *SHORT, "--json")
    told = json.loads(again.stdout)
    assert (told["schema"], told["measure"], told["asked"]) == (1, "accuracy", 0)
    assert (told["task_name"], told["max_tokens"], told["complete"]) == ("colours", 4, True)
    assert [point["n"] for point in told["points"]] == [6] * 4
    assert told["points"][0]["point"]["resolution"] == 84
    assert told["points"][0]["token_agreement"] == 1
    low, high = told["points"][0]["interval"]
    assert low == 0 < high < 1


def test_both_halves_are_one_object_and_share_the_time(
    bundle: Find, task: Path, state: Path
) -> None:
    limits = ("--minutes", "0.3", "--json")
    result = run("profile", bundle("llava"), "--task", task, *SHORT, *limits)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert set(told) == {"latency", "quality"}
    assert told["latency"]["seconds"] < 15  # of 18, the fit included
    assert told["quality"]["notes"] == []  # time was predicted by what was measured just before
    assert {path.name for path in state.iterdir()} >= {"latency", "quality"}


def test_time_that_is_over_is_told(bundle: Find, task: Path) -> None:
    some = ("--quality-only", "--minutes", "1e-9")
    result = run("profile", bundle("llava"), "--task", task, *SHORT, *some)
    assert "the time was over before all was asked: the same command goes on" in result.stdout


def test_a_second_profile_is_told_who_measures(bundle: Find, task: Path) -> None:
    folder = bundle("llava")
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    result = run("profile", folder, "--task", task, "--quality-only", *SHORT)
    first.communicate("\n")
    assert f"is being measured by process {first.pid}" in str(result.exception)
    assert run("profile", folder, "--task", task, "--quality-only", *SHORT).exit_code == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "x", "images": ["gone.png"], "question": "?"}', r"line 8: image .*gone.png"),
        ('{"id": "x", "question": "?"', "line 8: this is no JSON"),
        ('{"id": "x", "question": "?", "anwser": "y"}', "line 8: 'anwser' is no key.*'answer'"),
    ],
)
def test_a_broken_task_is_named_by_line_before_a_model_is_loaded(
    task: Path, line: str, message: str
) -> None:
    file = task / "task.jsonl"
    file.write_text(file.read_text(encoding="utf-8") + line, encoding="utf-8")
    result = run("profile", "no-such.bundle", "--task", task)
    assert isinstance(result.exception, InputError)
    assert re.search(message, str(result.exception))
