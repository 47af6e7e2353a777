"""`tightrope frontier`, on a real bundle and real files, as people and programs read it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tightrope.cli import app, report
from tightrope.errors import BudgetUnreachable, InputError, ProfileError
from tightrope.latency_file import write_latency
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
    told_of = {key for key in documented("`show --json`") if not key.startswith("agreement.")}
    assert keys(told) == told_of
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


@pytest.fixture
def ranked(measured: str, loaded: Callable[[str], Model], frontier_files: Any) -> str:
    """Points enough to rank, all asked the same questions."""
    share, point = frontier_files.share, frontier_files.measured_point
    sides = {84: 90, 56: 70, 28: 50}
    points = [point(OperatingPoint(resolution=side), share(n, 100)) for side, n in sides.items()]
    fewer = OperatingPoint(resolution=84, selector="visionzip", keep="25%")
    frontier_files.write_quality(
        loaded("llava").bundle,
        [*points, point(fewer, share(60, 100))],
        name="ranked",
        task="31" * 32,
    )
    return measured


def test_it_says_how_far_agreement_tells_accuracy(ranked: str) -> None:
    said = "Of 3 points, agreement with the unpruned answer has a rank correlation of unknown"
    assert said in run("show", ranked, "--task", "ranked")
    assert "rank correlation" not in run("show", ranked, "--task", "scenes")
    told = json.loads(run("show", ranked, "--task", "ranked", "--json"))
    assert told["agreement"] == {"points": 3, "answers": None, "tokens": None}
    found = {key for key in keys(told) if key.startswith("agreement")}
    assert found == {key for key in documented("`show --json`") if key.startswith("agreement")}


@pytest.fixture
def timed(ranked: str, loaded: Callable[[str], Model], synthetic: Any) -> str:
    """The same with a latency model."""
    model = loaded("llava")
    key = latency_key(model.bundle, model.backend)
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    return ranked


def test_a_report_is_one_file_and_its_images(timed: str, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="plots are drawn by vl-convert")
    page, images = tmp_path / "report.html", tmp_path / "images"
    arguments = ("report", timed, "--task", "scenes", "-o", str(page), "--images", str(images))
    assert f"written to {page}" in run(*arguments)
    assert page.stat().st_size > 100_000
    told = json.loads(run(*arguments, "--json"))
    assert keys(told) == documented("`report --json`")
    assert told["bytes"] == page.stat().st_size
    assert sorted(map(Path, told["images"])) == sorted(images.iterdir())


def test_a_place_that_no_report_can_be_written_to_is_refused_before_anything(
    timed: str, tmp_path: Path
) -> None:
    error = raised("report", timed, "-o", str(tmp_path))
    assert isinstance(error, InputError) and "is a folder" in str(error)
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    error = raised("report", timed, "-o", str(tmp_path / "r.html"), "--images", str(file))
    assert isinstance(error, InputError) and "is no folder" in str(error)


def test_a_report_without_its_extra_says_what_to_install(
    timed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIGHTROPE_DEBUG", "")
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    error = raised("report", timed, "-o", str(tmp_path / "r.html"))
    assert error is not None and report(error) == 1
    assert "needs the package vl_convert; install Tightrope with its extra [profile]" in (
        capsys.readouterr().err
    )


def test_a_report_needs_both_halves(measured: str, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="plots are drawn by vl-convert")
    error = raised("report", measured, "-o", str(tmp_path / "r.html"))
    assert isinstance(error, ProfileError) and "--latency-only" in str(error)
    assert not (tmp_path / "r.html").exists()


@pytest.fixture
def slower(timed: str, loaded: Callable[[str], Model], synthetic: Any, tmp_path: Path) -> str:
    """A latency file of another board."""
    key = replace(synthetic.KEY, bundle=loaded("llava").bundle.digest, board="Orin Nano 4GB")
    spread = replace(synthetic.SPREAD, ratios=tuple(2 * ratio for ratio in synthetic.SPREAD.ratios))
    model = replace(synthetic.MODEL, total=spread)
    file = tmp_path / "nano.json"
    record = replace(synthetic.RECORD, key=key, model=model)
    file.write_text(json.dumps(record.to_dict()), encoding="utf-8")
    return str(file)


def test_two_boards_for_people(timed: str, slower: str) -> None:
    told = run("compare", timed, slower, "--task", "ranked")
    for words in ("Orin Nano 4GB", "question by question", "nothing is in time", "or more"):
        assert words in told, words
    assert "not in time" in told and "as good" in told and "minus A" in told


def test_two_boards_for_programs_have_the_keys_of_the_page(timed: str, slower: str) -> None:
    told = json.loads(run("compare", timed, slower, "--task", "ranked", "--json"))
    assert told["schema"] == 1
    page, paired = documented("`compare --json`"), "points.against_first."
    # The answers of one bundle are the very same on both boards, so points are not compared here.
    assert keys(told) == {key for key in page if not key.startswith(paired)}
    assert {key.replace("points.", "deadlines.", 1) for key in page if key.startswith(paired)} == {
        key for key in page if key.startswith("deadlines.against_first.")
    }
    assert [len(told[name][0]["sides"]) for name in ("points", "deadlines")] == [2, 2]


def test_what_cannot_be_compared_is_refused(timed: str, slower: str) -> None:
    error = raised("compare", slower)
    assert isinstance(error, InputError) and "no bundle is named" in str(error)
    error = raised("compare", timed, "--task", "ranked")
    assert isinstance(error, InputError) and "nothing to compare it with" in str(error)
