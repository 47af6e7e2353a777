"""The operator lists: what is in them, and what they refuse."""

import itertools

import pytest

from tightrope.errors import BackendError, InputError
from tightrope.plugins.parsers import OLDEST, load_parser, parser_of, parser_versions

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
    versions = parser_versions()
    assert versions == ("10.3", "10.13", "10.16", "11.0")
    for before, after in itertools.pairwise(versions):
        older, newer = load_parser(before), load_parser(after)
        assert set(newer.types) > set(older.types)
        for operator, types in older.types.items():
            assert set(types) <= set(newer.types[operator])


@pytest.mark.parametrize("version", ["10.3", "10.13"])
def test_operators_of_later_versions_are_refused_by_name(version: str) -> None:
    later = {"Attention": "a", "RMSNormalization": "b", "RotaryEmbedding": "c", "Add": "d"}
    refused = load_parser(version).refuse(later | {"tightrope::SlotAttention": "e"})
    assert len(refused) == 4
    assert refused[0] == f"operator Attention (node a) is not in the list of TensorRT {version}"


def test_a_version_without_a_list_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"10\.4.*10\.3, 10\.13, 10\.16, 11\.0"):
        load_parser("10.4")


@pytest.mark.parametrize(
    ("tensorrt", "version"),
    [
        *(("10.3.0", "10.3"), ("10.7.0.23", "10.3"), ("10.13.3.9", "10.13")),
        *(("10.15.1", "10.13"), ("10.16.2.10", "10.16"), ("11.4.0.106", "11.0")),
    ],
)
def test_the_newest_list_that_is_not_newer_speaks_for_an_installed_version(
    tensorrt: str, version: str
) -> None:
    assert parser_of(tensorrt).version == version


def test_a_version_older_than_all_lists_names_the_jetpack() -> None:
    with pytest.raises(BackendError, match=r"8\.5\.2 is older than 10\.3.*JetPack 6\.1"):
        parser_of("8.5.2")


def test_later_lists_add_to_earlier_ones_and_keep_what_they_restrict() -> None:
    older, newer = load_parser("10.13"), load_parser("11.0")
    assert newer.attributes["TopK"] == older.attributes["TopK"]
    assert "Swish" in newer.types and "Swish" not in load_parser("10.16").types
    assert newer.inputs["Attention"] == 6 and newer.outputs["Attention"] == 1
    assert newer.int4_blocks == older.int4_blocks
