"""`tightrope task`, with a real bundle where a model is needed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tightrope.cli import app
from tightrope.errors import InputError
from tightrope.profiles.task.task import read_task, write_task

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Find = Callable[[str], Path]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Three questions about one picture that no answer is right to, one of them easy."""
    folder = tmp_path / "questions"
    folder.mkdir()
    Image.new("RGB", (30, 20), "red").save(folder / "a.png")
    asked = {"images": ["a.png"], "question": "what colour is it ?", "answer": "a long way"}
    lines: list[dict[str, Any]] = [
        {**asked, "id": "0", "type": "colour", "info": {"level": "easy"}},
        {**asked, "id": "1", "type": "colour", "info": {"level": "hard"}},
        {**asked, "id": "2", "type": "shape"},
    ]
    write_task(folder, lines)
    return folder


def score(*arguments: object) -> Any:
    given = [*map(str, arguments), "--max-tokens", "4", "--threads", "1"]
    return CliRunner().invoke(app, ["task", "score", *given])


def test_people_read_a_row_for_each_type(bundle: Find, task: Path) -> None:
    result = score(bundle("llava"), "--task", task, "--by", "level")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["colour", "2", "0.000", "0.000", "to", "0.658"] in lines
    assert ["all", "3", "0.000", "0.000", "to", "0.561"] in lines
    assert ["easy", "1", "0.000", "0.000", "to", "0.793"] in lines
    assert ["visual", "tokens", "kept", "16.0"] in lines
    assert "without a reference" not in result.stdout


def test_options_choose_the_point_and_the_questions(
    bundle: Find, task: Path, tmp_path: Path
) -> None:
    records = tmp_path / "records.jsonl"
    result = score(
        *(bundle("llava"), "--task", task, "--types", "shape, colour", "--limit", "2"),
        *("--selector", "visionzip", "--keep", "25%", "--policy", "h2o", "--kv-budget", "64"),
        *("--resolution", "84", "--records", records, "--json"),
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["schema"], told["task"], told["overall"]["n"]) == (1, str(task), 2)
    assert told["visual_tokens_kept"] == 9
    assert (told["point"]["selector"], told["point"]["policy"]) == ("visionzip", "h2o")
    assert "records" not in told
    lines = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["0", "1"]


def test_questions_without_a_reference_are_counted_apart(bundle: Find, tmp_path: Path) -> None:
    write_task(tmp_path, [{"id": "0", "question": "what is it ?"}])
    result = score(bundle("llava"), "--task", tmp_path)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["all", "0"] in lines
    assert ["without", "a", "reference", "1"] in lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "nowhere"), "task 'nowhere' is not a folder"),
        (("--task", "TASK", "--keep", "4"), "no selector is named"),
        (("--task", "TASK", "--records", "nowhere/x.jsonl"), "--records is 'nowhere/x.jsonl'"),
        (("--task", "TASK", "--thinking", "perhaps"), "thinking is 'perhaps'"),
        (("--task", "TASK", "--limit", "0"), "limit is 0"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_bundle_is_opened(
    task: Path, options: tuple[str, ...], message: str
) -> None:
    given = [str(task) if option == "TASK" else option for option in options]
    result = score("no.bundle", *given)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_a_wrong_task_is_one_sentence_and_code_2(command: Command, tmp_path: Path) -> None:
    result = command("task", "score", "no.bundle", "--task", str(tmp_path))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("no-such",), ("score", "x.bundle"), ("import", "pope")])
def test_a_wrong_command_line_ends_with_code_2(
    command: Command, arguments: tuple[str, ...]
) -> None:
    result = command("task", *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_an_interrupt_in_a_subcommand_ends_with_code_130(
    task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tightrope.profiles.task.task.read_task", interrupt)
    assert score("no.bundle", "--task", task).exit_code == 130


def test_questions_of_another_layout_are_imported(tmp_path: Path) -> None:
    pictures, source, out = tmp_path / "pictures", tmp_path / "pope_random.json", tmp_path / "out"
    pictures.mkdir()
    Image.new("RGB", (30, 20), "red").save(pictures / "a.jpg")
    asked = {"image": "a.jpg", "text": "Is there a cup?", "label": "no"}
    lines = (json.dumps({"question_id": number, **asked}) + "\n" for number in range(1200))
    source.write_text("".join(lines))
    given = ["task", "import", "pope", str(source), "--images", str(pictures), "-o"]
    result = CliRunner().invoke(app, [*given, str(out)])
    assert result.exit_code == 0, result.output
    assert ["questions", "1,200"] in [line.split() for line in result.stdout.splitlines()]
    assert len(read_task(out).items) == 1200
    result = CliRunner().invoke(app, [*given, str(tmp_path / "again"), "--json"])
    told = json.loads(result.stdout)
    assert (told["schema"], told["questions"], told["images"]) == (1, 1200, 1)
    result = CliRunner().invoke(app, [*given, str(out)])
    assert isinstance(result.exception, InputError)
