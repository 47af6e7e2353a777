"""`tightrope service` as somebody without a board meets it; under systemd: tests/jetson."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]
NAME = "tightrope-tests-none"


def test_a_dry_run_prints_the_unit_and_needs_neither_rights_nor_systemd(
    command: Command, bundle: Callable[[str], Path]
) -> None:
    path = bundle("llama")
    shown = command("service", "install", "--dry-run", "--bundle", str(path), "--name", NAME)
    assert shown.returncode == 0, shown.stderr
    assert f"# /etc/systemd/system/{NAME}.service" in shown.stdout
    assert f"serve {path} --host=127.0.0.1" in shown.stdout and "MemoryMax=" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, "bundle is missing"),
        (("--bundle", "no-such.bundle"), 1, "does not exist"),
        (("--name", "A b"), 2, "small letters"),
        (("--host", "0.0.0.0"), 2, "give --api-keys FILE"),
        (("--watchdog", "1"), 2, "watchdog is 1"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    command: Command, arguments: tuple[str, ...], status: int, words: str
) -> None:
    result = command("service", "install", "--dry-run", *arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert words in result.stderr and result.stderr.count("\n") == 1


def test_a_service_that_is_not_there_does_not_answer(command: Command) -> None:
    told = command("service", "status", "--json", "--name", NAME)
    assert told.returncode == 1
    assert json.loads(told.stdout)["installed"] is False
    gone = command("service", "uninstall", "--name", NAME)
    assert (gone.returncode, gone.stdout) == (0, f"{NAME} is not installed\n")
