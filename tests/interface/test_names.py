"""A graph's name is read back as it was written, and nothing else passes for one."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.interface.names import GraphName, Role, Variant

METHODS = st.one_of(st.just(""), st.from_regex(r"[a-z][a-z0-9_-]{0,9}", fullmatch=True))
NAMES = st.builds(
    GraphName,
    st.sampled_from(get_args(Variant)),
    st.sampled_from(get_args(Role)),
    METHODS,
)


@given(NAMES)
def test_a_name_is_read_back_with_and_without_its_folder_and_ending(name: GraphName) -> None:
    assert GraphName.parse(str(name)) == name
    assert GraphName.parse(name.file) == name
    assert name.file == f"graphs/{name}.onnx"


@given(NAMES, NAMES)
def test_two_names_are_never_spelt_alike(one: GraphName, other: GraphName) -> None:
    assert (str(one) == str(other)) == (one == other)


def test_names_look_as_they_do_in_a_bundle() -> None:
    assert str(GraphName("host", "decoder")) == "host.decoder"
    assert GraphName("standard", "prefill", "fastv").file == "graphs/standard.prefill-fastv.onnx"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host.",
        ".decoder",
        "decoder",
        "guest.decoder",
        "host.encoder",
        "host.decoder-",
        "host.-fastv",
        "host.decoder.onnx.onnx",
        "Host.decoder",
        "host.decoder fastv",
        "graphs/graphs/host.decoder.onnx",
        "weights.data",
    ],
)
def test_what_is_no_name_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is no graph's name") as refused:
        GraphName.parse(text)
    assert repr(text) in str(refused.value)
