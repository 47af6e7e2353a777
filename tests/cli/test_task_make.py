"""`tightrope task make` and `tightrope task show`, as people and programs use them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tightrope.profiles.scenes.make_config import MakeConfig
from tightrope.profiles.scenes.making import make_task, pixel_hash

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks") / "scenes"
    make_task(MakeConfig(images=2, pixels=168), folder)
    return folder


def test_make_writes_a_task_and_tells_what_is_in_it(command: Command, tmp_path: Path) -> None:
    target = tmp_path / "task"
    options = ("--images", "2", "--pixels", "168", "--type", "colour", "--type", "count")
    result = command("task", "make", "-o", str(target), *options, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["schema"] == 1 and found["by_type"] == {"colour": 2, "count": 2}
    assert found["pixel_sha256"] == pixel_hash(target)
    again = command("task", "make", "-o", str(target), *options)
    assert (again.returncode, again.stdout) == (2, "")
    assert "--force" in again.stderr and again.stderr.count("\n") == 1
    replaced = command("task", "make", "-o", str(target), *options, "--force")
    assert replaced.returncode == 0
    assert "colour 2, count 2" in replaced.stdout and found["pixel_sha256"] in replaced.stdout


def test_the_command_on_the_card_makes_the_task_again(
    command: Command, task: Path, tmp_path: Path
) -> None:
    card = (task / "README.md").read_text()
    line = next(line for line in card.splitlines() if line.startswith("tightrope task make"))
    words = line.replace("-o scenes", f"-o {tmp_path / 'again'}").split()
    assert command(*words[1:]).returncode == 0
    assert pixel_hash(tmp_path / "again") == pixel_hash(task)
    assert (tmp_path / "again" / "task.jsonl").read_bytes() == (task / "task.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kind", "films"), "board, tiled, clips, views, mix"),
        (("--split", "all"), "train, dev, test"),
        (("--seed", "-1"), "seed is -1"),
        (("--images", "0"), "images is 0"),
        (("--pixels", "100"), "336, 224, 168"),
        (("--level", "hardest"), "easy, medium, hard"),
        (("--type", "smell"), "colour, shape"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(
    entry_point: Command, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = entry_point("task", "make", "-o", str(tmp_path / "task"), *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_show_counts_types_with_an_example_of_each(command: Command, task: Path) -> None:
    result = command("task", "show", str(task))
    assert result.returncode == 0, result.stderr
    assert "what colour is the" in result.stdout and "list everything ." in result.stdout
    found = json.loads(command("task", "show", str(task), "--json").stdout)
    assert found["items"] == [] and found["sheet"] is None
    assert found["by_type"]["colour"]["questions"] == 2
    assert found["by_type"]["colour"]["example"]["type"] == "colour"
    assert sum(entry["questions"] for entry in found["by_type"].values()) == found["questions"]


def test_show_lists_and_narrows(command: Command, task: Path) -> None:
    result = command("task", "show", str(task), "--type", "count", "--limit", "1", "--json")
    found = json.loads(result.stdout)
    assert list(found["by_type"]) == ["count"]
    assert [item["id"] for item in found["items"]] == ["00000-count"]
    printed = command("task", "show", str(task), "--limit", "3").stdout
    assert printed.count("00000-") == 3


def test_show_tells_all_of_one_question(command: Command, task: Path) -> None:
    result = command("task", "show", str(task), "--id", "00000-count")
    assert result.returncode == 0, result.stderr
    for word in ("how many", "answer", "info: about", "info: thought", "images/00000.png"):
        assert word in result.stdout
    shown = json.loads(command("task", "show", str(task), "--id", "00000-count", "--json").stdout)
    (item,) = shown["items"]
    assert item["info"]["level"] in ("easy", "medium", "hard")


def test_a_sheet_is_a_picture_that_is_never_overwritten(
    command: Command, task: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    result = command("task", "show", str(task), "--sheet", str(sheet))
    assert result.returncode == 0, result.stderr
    with Image.open(sheet) as image:
        assert image.format == "PNG" and image.width > 900
    before = sheet.read_bytes()
    again = command("task", "show", str(task), "--sheet", str(sheet))
    assert again.returncode == 2 and "exists" in again.stderr
    assert sheet.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--id", "nobody"), "nobody"),
        (("--type", "smell"), "the task has colour"),
        (("--limit", "0"), "1 or more"),
        (("--sheet", "sheet.jpg"), "ending in .png"),
    ],
)
def test_show_refuses_what_is_not_there(
    entry_point: Command, task: Path, options: tuple[str, ...], message: str
) -> None:
    result = entry_point("task", "show", str(task), *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_show_refuses_what_is_no_task(entry_point: Command, tmp_path: Path) -> None:
    result = entry_point("task", "show", str(tmp_path))
    assert result.returncode == 2 and "task.jsonl" in result.stderr


@pytest.mark.parametrize("share", ["crowded", "crowded=", "crowded=half", "=40"])
def test_a_share_that_is_none_is_refused(entry_point: Command, tmp_path: Path, share: str) -> None:
    options = ("--kind", "mix", "--share", share)
    result = entry_point("task", "make", "-o", str(tmp_path / "task"), *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert "share" in result.stderr or "kind in a mix" in result.stderr
