"""The operator lists: what is in them, and what they refuse."""

import pytest

from tightrope.errors import InputError
from tightrope.plugins.parsers import OLDEST, load_parser, parser_versions

GROUPS = {"float32", "float16", "bfloat16", "int32", "int64", "bool", "uint8", "int8"}
WORDS = GROUPS | {"int4", "fp8", "fp4"}


def test_the_oldest_parser_stands_first() -> None:
    assert parser_versions()[0] == OLDEST


@pytest.mark.parametrize("version", parser_versions())
def test_every_list_is_whole(version: str) -> None:
    parser = load_parser(version)
    assert parser.version == version
    assert set().union(*parser.types.values()) <= WORDS
    for table in (
        parser.type_inputs,
        parser.constant_inputs,
        parser.attributes,
        parser.outputs,
        parser.newest_opset,
    ):
        assert set(table) <= set(parser.types)


def test_a_newer_parser_has_every_operator_of_an_older_one() -> None:
    older, newer = load_parser("10.3"), load_parser("10.13")
    for operator, types in older.types.items():
        assert set(types) <= set(newer.types[operator])
    assert set(newer.types) > set(older.types)


@pytest.mark.parametrize("version", parser_versions())
def test_operators_of_later_versions_are_refused_by_name(version: str) -> None:
    later = {"Attention": "a", "RMSNormalization": "b", "RotaryEmbedding": "c", "Add": "d"}
    refused = load_parser(version).refuse(later | {"tightrope::SlotAttention": "e"})
    assert len(refused) == 4
    assert refused[0] == f"operator Attention (node a) is not in the list of TensorRT {version}"


def test_a_version_without_a_list_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"10\.4.*10\.3, 10\.13"):
        load_parser("10.4")
