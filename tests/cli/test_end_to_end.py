"""The command as its users type it, on the reference checkpoint and on one bundle made of it.

`make test-oldest` names a bundle in TIGHTROPE_TEST_BUNDLE: there the tests that need no export
run with the oldest packages.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tightrope.cli import demo_bundles, demo_deadlines
from tightrope.point import in_words
from tightrope.profiles.task.task import read_task

ROOT = Path(__file__).resolve().parents[2]
SCENES = ROOT / "tests" / "data" / "scenes"
IMAGE = str(SCENES / "images" / "00001.png")
QUESTION, ANSWER = "what colour is the star ?", "red"

Command = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow
# In `tightrope.cli` itself the name is the subcommand's function.
demo: Any = importlib.import_module("tightrope.cli.demo")
can_export = importlib.util.find_spec("torch") is not None
needs_export = pytest.mark.skipif(not can_export, reason="export needs the extra [export]")


def tightrope(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tightrope", *arguments],
        cwd=ROOT,
        env={**os.environ, "TIGHTROPE_DEBUG": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def profiled(*arguments: str, minutes: float) -> tuple[subprocess.CompletedProcess[str], float]:
    """`tightrope profile` within these minutes, or more where others leave it no time."""
    while True:
        result = tightrope("profile", *arguments, "--minutes", str(minutes))
        if minutes > 4 or "kinds of request could be measured" not in result.stderr:
            return result, minutes
        minutes *= 3


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle of the reference model, and what `export` printed."""
    path = tmp_path_factory.mktemp("bundles") / "reference.bundle"
    sides = [word for side in (336, 224, 168) for word in ("--resolution", str(side))]
    result = tightrope("export", "models/reference", "-o", str(path), "--schedule", "fastv", *sides)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    return path, result.stdout


@pytest.fixture(scope="module")
def bundle(request: pytest.FixtureRequest) -> str:
    if given := os.environ.get("TIGHTROPE_TEST_BUNDLE"):
        return str(ROOT / given)
    if not can_export:
        pytest.skip("export needs the extra [export], and TIGHTROPE_TEST_BUNDLE names no bundle")
    path, _ = request.getfixturevalue("exported")
    return str(path)


def assert_one_sentence(result: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert words in result.stderr


@needs_export
def test_export_prints_a_summary_with_its_parity(exported: tuple[Path, str]) -> None:
    path, printed = exported
    assert str(path) in printed
    for words in ("fp16", "divprune, flashvlm, visionzip", "fastv", "9 of 9 equal", "parity"):
        assert words in printed


@needs_export
def test_a_second_export_to_the_same_name_needs_force(
    entry_point: Command, exported: tuple[Path, str]
) -> None:
    path, _ = exported
    manifest = (path / "bundle.json").read_bytes()
    result = entry_point("export", "models/reference", "-o", str(path))
    assert_one_sentence(result, 2, "--force")
    assert (path / "bundle.json").read_bytes() == manifest


@needs_export
def test_force_replaces_no_folder_that_is_no_bundle(entry_point: Command, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine", encoding="utf-8")
    result = entry_point("export", "models/reference", "-o", str(tmp_path), "--force")
    assert_one_sentence(result, 2, "is no bundle and is not replaced")
    assert (tmp_path / "precious.txt").read_text(encoding="utf-8") == "mine"


@needs_export
def test_an_interrupted_export_leaves_nothing_behind(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "tightrope", "export", "models/reference"),
            *("-o", str(tmp_path / "x.bundle")),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell runs in its background ignores the signal, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".x.bundle.*")):
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(3)  # into the tracing
        running.send_signal(signal.SIGINT)
        try:
            out, err = running.communicate(timeout=8)
        except subprocess.TimeoutExpired:
            # Python drops an interrupt that comes inside a destructor; people press again.
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
    assert running.returncode == 130
    # Nor does it drop one quietly: it prints what it ignored.
    assert "Traceback" not in err or "Exception ignored in" in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@needs_export
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("no/such/folder",), 1, "no/such/folder does not exist"),
        (("tests",), 1, "has no config.json"),
        (("models/reference", "--precision", "int2"), 2, "accepted: fp32, fp16, int4"),
        (("models/reference", "--selector", "dart"), 2, "accepted: divprune"),
        (("models/reference", "--schedule", "visionzip"), 2, "accepted: fastv"),
        (("models/reference", "--slots", "0"), 2, "slots is 0"),
        (("models/reference", "--resolution", "0"), 2, "resolution is 0"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    entry_point: Command, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = entry_point("export", *arguments, "-o", str(tmp_path / "x.bundle"))
    assert_one_sentence(result, code, words)
    assert list(tmp_path.iterdir()) == []


def test_inspect_tells_people_and_programs_the_same(bundle: str) -> None:
    people = tightrope("inspect", bundle)
    assert people.returncode == 0
    assert all(word in people.stdout for word in ("llava", "576 tokens", "apache-2.0", "parity"))
    found = json.loads(tightrope("inspect", bundle, "--json").stdout)
    assert found["bundle"]["vision"]["resolutions"] == [336, 224, 168]
    assert all(name in people.stdout for name in found["bundle"]["files"])


def test_inspect_verify_hashes_and_passes(bundle: str) -> None:
    assert tightrope("inspect", bundle, "--verify").returncode == 0


def test_run_answers_a_question_about_an_image(bundle: str) -> None:
    result = tightrope("run", bundle, QUESTION, "--image", IMAGE)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{ANSWER}\n", "")


def test_run_takes_an_operating_point_and_reports_it_in_one_json_object(bundle: str) -> None:
    point = ("--selector", "visionzip", "--keep", "25%", "--policy", "h2o", "--kv-budget", "64")
    result = tightrope("run", bundle, QUESTION, "--image", IMAGE, *point, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["text"] == ANSWER
    assert found["usage"]["visual_tokens"] == 576
    assert found["usage"]["visual_tokens_kept"] == 144
    assert found["usage"]["occupied_slots"] == 64
    assert found["point"]["policy"] == "h2o"
    assert found["backend"] == "onnxruntime"


def test_run_explains_on_standard_error(bundle: str) -> None:
    result = tightrope("run", bundle, QUESTION, "--image", IMAGE, "--explain")
    assert result.stdout == f"{ANSWER}\n"
    assert all(word in result.stderr for word in ("onnxruntime", "ttft_ms", "occupied_slots"))


def test_run_samples_several_answers_from_one_prefill(bundle: str) -> None:
    many = ("--n", "3", "--temperature", "1", "--seed", "7", "--json")
    result = tightrope("run", bundle, QUESTION, "--image", IMAGE, *many)
    assert len(json.loads(result.stdout)["samples"]) == 3
    assert result.stdout.count(ANSWER) >= 1


def test_a_chat_reads_its_turns_from_standard_input(bundle: str, command: Command) -> None:
    lines = f"/image {IMAGE}\n{QUESTION}\nwhere is it ?\n"
    result = command("run", bundle, "--chat", "--explain", stdin=lines)
    assert (result.returncode, result.stdout) == (0, f"{ANSWER}\nmiddle left\n")
    prompt, cached = (
        [int(number) for number in re.findall(rf"{name}\s+(\d+)", result.stderr)]
        for name in ("prompt_tokens", "cached_tokens")
    )
    assert cached == [0, prompt[0] + 1], "the prompt and the answer's word are still there"
    assert prompt[1] > cached[1], "the second prompt is the first one and more"


def test_bench_prints_one_json_object_and_a_table(bundle: str) -> None:
    small = ("--prompt-tokens", "16", "--generate-tokens", "4", "--repetitions", "2")
    result = tightrope("bench", bundle, *small, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    rows = json.loads(result.stdout)["rows"]
    assert [row["test"] for row in rows] == ["pp16", "tg4"]
    assert all(row["tokens_per_s_mean"] > 0 for row in rows)
    image = ("--image", IMAGE, "--selector", "visionzip", "--keep", "25%")
    table = tightrope("bench", bundle, *small, *image)
    assert table.returncode == 0
    assert "visionzip, keep 25%" in table.stdout


def test_a_request_is_counted_and_once_latency_is_profiled_predicted(
    bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path))
    dry = ("run", bundle, QUESTION, "--image", IMAGE, "--selector", "visionzip", "--keep", "25%")
    before = json.loads(tightrope(*dry, "--dry-run", "--json").stdout)
    assert before["prediction"] is None
    assert "--latency-only" in before["notes"][0]
    assert (before["visual_tokens"], before["visual_tokens_kept"]) == (576, 144)

    measured, minutes = profiled(bundle, "--latency-only", "--json", minutes=0.25)
    assert (measured.returncode, measured.stderr) == (0, "")
    record = json.loads(measured.stdout)
    (file,) = (tmp_path / "latency").iterdir()
    assert json.loads(file.read_text(encoding="utf-8")) == record
    assert record["points"] >= 6 and record["seconds"] < 2 * 60 * minutes

    after = tightrope(*dry, "--dry-run")
    assert after.returncode == 0
    assert all(word in after.stdout for word in ("first token", "p95", "prefill", "144"))
    told = json.loads(tightrope(*dry, "--dry-run", "--json").stdout)
    assert {**told, "prediction": None, "notes": before["notes"]} == before
    assert told["prediction"]["ttft"]["p95_ms"] >= told["prediction"]["ttft"]["p50_ms"] > 0


def test_inspect_adds_what_a_boards_data_sheet_promises(bundle: str) -> None:
    result = tightrope("inspect", bundle, "--board", "Orin Nano 8GB", "--power-mode", "25W")
    assert result.returncode == 0
    assert "guessed from the board's data sheet; measured nowhere" in result.stdout
    told = json.loads(tightrope("inspect", bundle, "--board", "Orin Nano 8GB", "--json").stdout)
    assert told["data_sheet"]["device"]["power_mode"] == "MAXN_SUPER"
    assert told["data_sheet"]["tpot_ms"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((QUESTION, "--selector", "visionzip", "--keep", "0"), "keep is 0"),
        ((QUESTION, "--selector", "visionzip", "--keep", "577"), "keep is 577"),
        ((QUESTION, "--selector", "visionzip", "--keep", "nan"), "nan"),
        ((QUESTION, "--selector", "dart", "--keep", "64"), "divprune, flashvlm, visionzip"),
        ((QUESTION, "--kv-budget", "4096"), "has 2048 slots"),
        ((QUESTION, "--kv-budget", "20"), "kv_budget is 20"),
        ((QUESTION, "--kv-budget", "64", "--policy", "lru"), "snapkv"),
        ((QUESTION, "--resolution", "225"), "made for 336, 224, 168"),
        (("<image> <image> what ?",), "mark places for 2 images, but 1 came"),
        ((QUESTION, "--image", str(SCENES / "nowhere.png")), "nowhere.png"),
        ((QUESTION, "--image", str(SCENES / "task.jsonl")), "task.jsonl"),
        ((QUESTION, "--max-tokens", "0"), "max_tokens is 0"),
        ((QUESTION, "--temperature", "nan"), "temperature"),
        ((QUESTION, "--top-p", "0"), "top_p"),
        ((QUESTION, "--n", "0"), "n is 0"),
        ((QUESTION, "--backend", "cuda"), "accepted"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence_and_code_2(
    entry_point: Command, bundle: str, arguments: tuple[str, ...], words: str
) -> None:
    images = () if "--image" in arguments else ("--image", IMAGE)
    assert_one_sentence(entry_point("run", bundle, *arguments, *images), 2, words)


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "tensorrt"])
def test_a_backend_that_is_not_here_is_an_error_and_nothing_else_runs(
    entry_point: Command, bundle: str, backend: str
) -> None:
    result = entry_point("run", bundle, QUESTION, "--image", IMAGE, "--backend", backend)
    if result.returncode == 0:
        pytest.skip(f"{backend} runs on this machine")
    assert_one_sentence(result, 1, "")


def test_the_readmes_session_does_what_it_says(bundle: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("scene.bundle", bundle)
    # Whatever others leave of the machine: its speed is no matter of this test.
    text = text.replace("900ms", "60s").replace("deadline_ms=900", "deadline_ms=60000")
    shell, python = (
        re.findall(rf"```{name}\n(.*?)```", text, re.S)[0] for name in ("sh", "python")
    )
    lines = [line for line in shell.splitlines() if not line.startswith("tightrope export")]
    lines = [line for line in lines if line]
    assert len(lines) == 6
    for line in lines:
        _, subcommand, *words = shlex.split(line.replace("--minutes 3", ""), comments=True)
        if subcommand == "profile":
            result, _ = profiled(*words, minutes=0.4)
        else:
            result = tightrope(subcommand, *words)
        assert result.returncode == 0, result.stderr
    assert result.stdout == "middle left\n"
    result = subprocess.run(
        [sys.executable, "-c", python], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    full, pruned, _, planned, last = result.stdout.splitlines()
    assert full == "red 576 586"
    assert pruned == "red 144 64"
    assert planned.split()[0] in ("True", "False")
    assert last.startswith("red") and last.endswith("tokens were still there")


@needs_export
def test_the_demo_goes_on_without_the_language_model(
    exported: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path))
    monkeypatch.setattr(demo, "export_once", lambda wanted: exported[0])
    absent = replace(demo.SMOLLM2, checkpoint=Path("models/absent/absent.gguf"))
    monkeypatch.setattr(demo, "SMOLLM2", absent)
    monkeypatch.setattr(demo, "REPETITIONS", 1)
    monkeypatch.setattr(demo_deadlines, "LATENCY_MINUTES", 0.4)
    monkeypatch.setattr(demo_deadlines, "QUALITY_MINUTES", 0.2)
    demo.run_demo()
    printed = capsys.readouterr().out
    assert "10 questions about images" in printed
    assert "models/absent is empty" in printed
    assert all(in_words(point) in printed for point in demo.POINTS)
    assert "The same 10 questions under three deadlines" in printed


@needs_export
def test_the_demo_keeps_a_bundle_only_while_it_fits(
    exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(demo_bundles, "CACHE", tmp_path)
    assert not demo_bundles.is_fitting(demo.REFERENCE)
    shutil.copytree(exported[0], demo.REFERENCE.path)
    assert demo_bundles.is_fitting(demo.REFERENCE)
    assert not demo_bundles.is_fitting(replace(demo.REFERENCE, precision="int4"))
    assert not demo_bundles.is_fitting(replace(demo.REFERENCE, schedules=()))
    (demo.REFERENCE.path / "tokenizer.json").unlink()
    assert not demo_bundles.is_fitting(demo.REFERENCE)


def test_the_demo_asks_ten_images_questions_of_every_type() -> None:
    chosen = demo.chosen_questions(SCENES)
    assert len({asked.images for asked in chosen}) == 10
    types = {item.type for item in read_task(SCENES).items}
    assert {asked.type for asked in chosen} == types - {"list", "recall"}


@needs_export
def test_every_standard_graph_builds_in_tensorrt_for_rtx(exported: tuple[Path, str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra [check]")
    result = tightrope("build", str(exported[0]), "--plugins", "none", "--check", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    graphs = json.loads(result.stdout)["graphs"]
    assert {"standard.vision", "standard.prefill", "standard.decode"} <= {
        row["graph"] for row in graphs
    }
    assert all(row["ok"] for row in graphs)
