from __future__ import annotations

import pytest
import typer

from tightrope.cli.options import operating_point, parse_keep, parse_kv_budget
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
