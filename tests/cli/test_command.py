from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import tightrope
from tightrope.cli import report
from tightrope.errors import BackendError, BudgetUnreachable, BundleError, InputError

Command = Callable[..., "subprocess.CompletedProcess[str]"]

SUBCOMMANDS = (
    "demo",
    "export",
    "inspect",
    "run",
    "selftest",
    "serve",
    "bench",
    "profile",
    "profile-worker",
    "build",
    "frontier",
    "methods",
    "doctor",
    "task",
)


def assert_one_sentence(text: str) -> None:
    assert text.count("\n") == 1
    assert "Traceback" not in text


def test_help_names_every_subcommand(command: Command) -> None:
    result = command("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in SUBCOMMANDS)


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_subcommand_has_help(command: Command, subcommand: str) -> None:
    result = command(subcommand, "--help")
    assert result.returncode == 0
    assert f"tightrope {subcommand}" in result.stdout


def test_version_is_printed_alone(command: Command) -> None:
    assert command("--version").stdout == f"tightrope {tightrope.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("no-such-subcommand",),
        ("doctor", "--no-such-option"),
        ("inspect",),
        ("export", "checkpoint"),
        ("run", "x.bundle", "question", "--max-tokens", "many"),
        ("run", "x.bundle", "question", "--keep", "64"),
        ("run", "x.bundle", "question", "--kv-budget", "lots"),
        ("run", "x.bundle", "question", "--policy", "h2o"),
        ("run", "x.bundle"),
        ("run", "x.bundle", "--chat", "--json"),
        ("bench", "x.bundle", "--keep", "64"),
        ("profile", "x.bundle", "--quality-only"),
        ("profile", "x.bundle", "--latency-only", "--minutes", "0"),
        ("profile", "x.bundle", "--latency-only", "--minutes", "nan"),
        ("run", "x.bundle", "question", "--dry-run", "--n", "2"),
        ("run", "x.bundle", "--dry-run", "--chat"),
        ("inspect", "x.bundle", "--power-mode", "15W"),
        ("inspect", "x.bundle", "--board", "Orin Toaster"),
        ("build", "x.bundle", "--plugins", "some"),
        ("build", "x.bundle", "--board", "Orin Toaster"),
    ],
)
def test_a_wrong_command_line_ends_with_code_2_and_no_traceback(
    entry_point: Command, arguments: tuple[str, ...]
) -> None:
    result = entry_point(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_a_missing_bundle_is_one_sentence_and_code_1(command: Command, tmp_path: Path) -> None:
    result = command("inspect", str(tmp_path / "no.bundle"))
    assert result.returncode == 1
    assert result.stdout == ""
    assert "no.bundle does not exist" in result.stderr
    assert_one_sentence(result.stderr)


def test_a_failure_with_json_leaves_standard_output_empty(command: Command, tmp_path: Path) -> None:
    result = command("inspect", str(tmp_path / "no.bundle"), "--json")
    assert (result.returncode, result.stdout) == (1, "")
    assert_one_sentence(result.stderr)


def test_build_without_check_says_what_is_missing(command: Command) -> None:
    result = command("build", "x.bundle")
    assert result.returncode == 1
    assert "sudo apt install python3-libnvinfer" in result.stderr
    assert_one_sentence(result.stderr)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("keep is 0; accepted: 1 or more"), 2),
        (BundleError("x.bundle does not exist"), 1),
        (BackendError("the session could not be made"), 1),
        (BudgetUnreachable("300 ms are not enough"), 3),
        (KeyError("surprise"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code_and_at_most_one_sentence(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == code
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == (0 if code == 130 else 1)


def test_a_surprise_says_how_to_see_where_it_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    report(KeyError("surprise"))
    assert "internal error: KeyError" in (written := capsys.readouterr().err)
    assert "TIGHTROPE_DEBUG=1" in written


def test_a_missing_package_names_the_extra_that_brings_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(ModuleNotFoundError("No module named 'torch'", name="torch.nn")) == 1
    assert "[export]" in capsys.readouterr().err


def test_with_debug_the_error_itself_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIGHTROPE_DEBUG", "1")
    with pytest.raises(KeyError):
        report(KeyError("surprise"))
