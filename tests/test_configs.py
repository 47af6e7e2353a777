"""Defaults and sentences of settings, as the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from tightrope.cli.options import option
from tightrope.configs import default_of, help_of, setting
from tightrope.profiles.bench_config import BenchConfig
from tightrope.profiles.scenes.make_config import MakeConfig
from tightrope.profiles.task.score_config import ScoreConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    count: int = setting(3, "How many.")
    names: tuple[str, ...] = setting((), "Which.")
    plain: int = 4


def test_a_setting_is_an_ordinary_field_with_a_sentence() -> None:
    assert Config() == Config(count=3, names=(), plain=4)
    assert (default_of(Config, "count"), help_of(Config, "count")) == (3, "How many.")
    assert default_of(Config, "plain") == 4


def count(
    given: Annotated[int, option(Config, "count", "--count", "-c", metavar="N")] = default_of(
        Config, "count"
    ),
    names: Annotated[list[str], option(Config, "names", repeated=True)] = default_of(
        Config, "names"
    ),
) -> None:
    print(given, names)


def test_an_option_says_the_sentence_and_that_it_may_be_repeated() -> None:
    app = typer.Typer()
    app.command()(count)
    run = CliRunner()
    told = " ".join(run.invoke(app, ["--help"], env={"COLUMNS": "120"}).stdout.split())
    assert "How many. [default: 3]" in told and "Which; may be repeated." in told
    assert "N How many." in told
    assert run.invoke(app, []).stdout == "3 []\n"
    given = ["-c", "5", "--names", "a", "--names", "b"]
    assert run.invoke(app, given).stdout == "5 ['a', 'b']\n"


@pytest.mark.parametrize("config", [BenchConfig, ScoreConfig, MakeConfig])
def test_the_defaults_of_a_config_are_accepted(config: type) -> None:
    config()
