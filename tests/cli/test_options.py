from __future__ import annotations

import pytest
import typer

from tightrope.cli.options import (
    operating_point,
    parse_duration_ms,
    parse_keep,
    parse_kv_budget,
)
from tightrope.errors import InputError
from tightrope.point import OperatingPoint


def test_no_option_leaves_the_choice_to_the_runtime() -> None:
    assert operating_point() is None


def test_options_spell_an_operating_point() -> None:
    point = operating_point(
        selector="visionzip+fastv", keep="64, 50%", policy="h2o", kv_budget="256,192"
    )
    assert point == OperatingPoint(
        selector="visionzip+fastv", keep=(64, "50%"), policy="h2o", kv_budget=(256, 192)
    )


@pytest.mark.parametrize(("text", "keep"), [("64", 64), ("25%", "25%"), ("64,8", (64, 8))])
def test_keep_is_a_count_a_percentage_or_one_value_a_link(text: str, keep: object) -> None:
    assert parse_keep(text) == keep


def test_a_keep_that_is_neither_is_refused_where_the_point_is_made() -> None:
    with pytest.raises(InputError, match="keep is 'half'"):
        operating_point(selector="visionzip", keep="half")


def test_a_budget_that_is_no_number_names_its_option() -> None:
    with pytest.raises(typer.BadParameter, match="no number of slots"):
        parse_kv_budget("256,lots")


@pytest.mark.parametrize(
    ("text", "ms"),
    [("900ms", 900.0), ("1.5s", 1500.0), ("900", 900.0), (" .5s ", 500.0), ("0.25", 0.25)],
)
def test_a_duration_is_in_milliseconds_where_no_unit_is_named(text: str, ms: float) -> None:
    assert parse_duration_ms("--deadline", text) == ms


@pytest.mark.parametrize(
    "text",
    ["0", "0ms", "-5ms", "nan", "inf", "soon", "", "ms", "5 m", "1,5s", "9" * 400],
)
def test_what_is_no_time_above_zero_is_refused_and_shown(text: str) -> None:
    with pytest.raises(InputError, match=r"--deadline is .*; accepted: a time above 0, as"):
        parse_duration_ms("--deadline", text)
