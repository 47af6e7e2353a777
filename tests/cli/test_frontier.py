"""`tightrope frontier`, on a real bundle and real files, as people and programs read it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tightrope.cli import app
from tightrope.errors import BudgetUnreachable, InputError, ProfileError
from tightrope.point import OperatingPoint
from tightrope.profiles.latency.measured import write_points
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "frontier.md"
LARGE, SMALL = OperatingPoint(resolution=84), OperatingPoint(resolution=28)
LEFT = OperatingPoint(resolution=56, thinking_tokens=0)


@pytest.fixture
def measured(
    loaded: Callable[[str], Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frontier_files: Any,
) -> str:
    """Two points and one that left the race; measured runs of two."""
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))
    model = loaded("llava")
    share, point = frontier_files.share, frontier_files.measured_point
    frontier_files.write_quality(
        model.bundle,
        [
            point(LARGE, share(90, 100)),
            point(SMALL, share(50, 100)),
            point(LEFT, share(8, 30), beaten_by=LARGE),
        ],
    )
    runs = [frontier_files.runs(LARGE, 80.0), frontier_files.runs(SMALL, 40.0)]
    key = latency_key(model.bundle, model.backend)
    write_points(model.bundle, frontier_files.points_record(key, runs))
    return str(model.bundle.path)


def invoked(*arguments: str) -> Any:
    """On the machine that the files are of: one thread."""
    how = ("--backend", "onnxruntime", "--threads", "1")
    return CliRunner().invoke(app, ["frontier", *arguments, *how])


def run(*arguments: str) -> str:
    result = invoked(*arguments)
    assert result.exit_code == 0, result.output
    told: str = result.stdout
    return told


def raised(*arguments: str) -> BaseException | None:
    exception: BaseException | None = invoked(*arguments).exception
    return exception


def keys(value: Any, path: str = "") -> set[str]:
    """All keys of a JSON object as `a.b`, of lists those of their objects, points as one value."""
    if isinstance(value, list):
        return set().union(*(keys(item, path) for item in value)) if value else set()
    if not isinstance(value, dict) or "kv_budget" in value or path == "slos":
        return set()
    found = set()
    for name, item in value.items():
        inner = f"{path}.{name}" if path else name
        found |= {inner} | keys(item, inner)
    return found


def documented(heading: str) -> set[str]:
    """The keys in the table below a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"### {heading}\n", 1)[1].split("\n### ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", section, flags=re.MULTILINE)
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def test_the_frontier_for_people(measured: str) -> None:
    told = run("show", measured, "--slo", "total:81.9ms", "--slo", "ttft:1s")
    for words in (
        "accuracy by scenes",
        "28 px",
        "0.900",
        "0.826..0.945",
        "measured",
        "none",
        "left the race for 84 px",
        "200 MiB",
        "5 of 20",
    ):
        assert words in told, words
    lines = told.splitlines()
    assert next(line for line in lines if line.startswith("28 px")).endswith("*")
    assert "no latency was measured" in told


def test_the_frontier_for_programs_has_the_keys_of_the_page(measured: str) -> None:
    told = json.loads(run("show", measured, "--json", "--slo", "request_latency:82ms"))
    assert told["schema"] == 1
    assert keys(told) == documented("`show --json`")
    assert told["slos"] == {"request_latency": 82.0}
    assert [each["point"]["resolution"] for each in told["points"]] == [28, 84, 56]
    assert told["points"][1]["latency"]["energy_j"] is None


def test_the_best_point_for_people(measured: str) -> None:
    told = run("best", measured, "--deadline", "1s")
    for words in ("84 px", "0.900", "energy", "not measured", "2 of 3 points", "measured, 20 runs"):
        assert words in told, words
    assert "28 px" in run("best", measured, "--deadline", "60ms")


def test_the_best_point_for_programs_has_the_keys_of_the_page(measured: str) -> None:
    told = json.loads(run("best", measured, "--deadline", "1s", "--first-token", "500", "--json"))
    assert {f"points.{key}" for key in keys(told["chosen"])} <= keys(told)
    shown = json.loads(run("show", measured, "--json"))
    assert keys(shown) <= keys(told)
    more = {key for key in keys(told) if key.split(".")[0] not in shown}
    assert {key for key in more if not key.startswith("chosen.")} == documented("`best --json`")
    assert told["chosen"]["point"]["resolution"] == 84
    assert told["budget"]["deadline_ms"] == 1000.0 and told["budget"]["first_token_ms"] == 500.0


def test_a_deadline_below_the_fastest_point_tells_its_figure(measured: str) -> None:
    error = raised("best", measured, "--deadline", "10ms")
    assert isinstance(error, BudgetUnreachable)
    assert error.fastest_ms == pytest.approx(43.762)
    assert re.search(r"within 10 ms: the fastest, 28 px, takes 43\.\d+ ms", str(error))


def test_a_script_can_tell_it_by_the_exit_code(measured: str, command: Callable[..., Any]) -> None:
    how = ("--backend", "onnxruntime", "--threads", "1")
    result = command("frontier", "best", measured, "--deadline", "10ms", *how)
    assert result.returncode == 3 and result.stdout == ""
    assert result.stderr.startswith("error: no point answers within 10 ms")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--deadline", "soon"), "--deadline is 'soon'"),
        (("--deadline", "-5ms"), "--deadline is '-5ms'"),
        (("--first-token", "nan"), "--first-token is 'nan'"),
        (("--deadline", "1s", "--min-quality", "1.5"), "min_quality is 1.5"),
        ((), "a budget has no limit"),
    ],
)
def test_a_budget_that_is_none_is_refused(
    measured: str, arguments: tuple[str, ...], words: str
) -> None:
    error = raised("best", measured, *arguments)
    assert isinstance(error, InputError) and words in str(error)


@pytest.mark.parametrize("text", ["total", "tpot:5ms", "total:never"])
def test_a_promise_that_is_none_is_refused(measured: str, text: str) -> None:
    assert isinstance(raised("show", measured, "--slo", text), InputError)


def test_a_task_that_was_not_measured_is_refused(measured: str) -> None:
    error = raised("show", measured, "--task", "other")
    assert isinstance(error, ProfileError) and "there is: scenes" in str(error)
