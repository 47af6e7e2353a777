"""The reader of own nodes: it reads what onnx wrote, what is not of the op set is refused."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("onnx", reason="the oracle is the onnx package")

import onnx

from tightrope.errors import BackendError
from tightrope.interface.onnx import OWN_DOMAIN, OWN_OPSET
from tightrope.plugins.own_nodes import OwnNode, read_own_nodes

ASKED: dict[str, Any] = {"plugin_namespace": OWN_DOMAIN, "plugin_version": str(OWN_OPSET)}
INPUTS = ("query", "key", "value", "cu_seqlens")


def model(
    op: str = "VarlenAttention",
    inputs: tuple[str, ...] = INPUTS,
    outputs: tuple[str, ...] = ("out",),
    version: int = OWN_OPSET,
    **attributes: Any,
) -> bytes:
    """A graph with one own node beside one of onnx."""
    given = {name: value for name, value in {**ASKED, **attributes}.items() if value is not None}
    nodes = [
        onnx.helper.make_node("Relu", ["q"], ["query"]),
        onnx.helper.make_node(op, inputs, outputs, name="blocks.3", domain=OWN_DOMAIN, **given),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [], [])
    imports = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid(OWN_DOMAIN, version)]
    content: bytes = onnx.helper.make_model(graph, opset_imports=imports).SerializeToString()
    return content


def test_a_node_is_read_as_onnx_wrote_it() -> None:
    (node,) = read_own_nodes(model(scale=0.25, longest=-7), "x.onnx")
    attributes = {**ASKED, "scale": 0.25, "longest": -7}
    assert node == OwnNode("VarlenAttention", "blocks.3", INPUTS, ("out",), attributes)


def test_inputs_that_are_left_out_are_told_by_a_bit_each() -> None:
    content = model("Int4MatMul", ("x", "w", "s", "t"), ("y",), given=0b010111)
    assert read_own_nodes(content, "x.onnx")[0].attributes["given"] == 0b010111


def test_a_graph_without_own_nodes_has_none() -> None:
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["a"], ["b"])], "g", [], [])
    assert read_own_nodes(onnx.helper.make_model(graph).SerializeToString(), "x.onnx") == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 3}, r"x\.onnx is of op set 3, this reader knows 2; export .* again"),
        ({"plugin_version": "1"}, r"\(node blocks\.3\) asks for op set 1, this reader knows 2"),
        ({"plugin_version": None}, r"asks for op set None, this reader knows 2"),
        ({"plugin_namespace": None}, r"has the plugin namespace None, not 'tightrope'"),
        ({"plugin_namespace": "other"}, r"has the plugin namespace 'other', not 'tightrope'"),
        ({"op": "Relu"}, r"Relu \(node blocks\.3\) is none of our ops \(.*SlotAttention.*\)"),
        ({"softcap": 1.0}, "has the attribute softcap, which the op does not know"),
        ({"scale": 1}, "has scale = 1, a number of another kind than 1.0"),
        ({"inputs": ("query", "key")}, "has 2 inputs, the op 4"),
        ({"inputs": (*INPUTS[:3], "")}, "has 3 inputs, the op 4"),
        ({"outputs": ("out", "more")}, "has 2 outputs, the op 1"),
        ({"given": 0b0111}, "has given = 7, inputs that the op does not know"),
        ({"given": 0b11111}, "has given = 31, inputs"),
        ({"given": -1}, "has given = -1, inputs"),
        ({"given": "x"}, "has given = 'x', inputs"),
    ],
)
def test_a_node_that_is_not_of_the_op_set_is_refused_by_what_differs(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BackendError, match=said):
        read_own_nodes(model(**changes), "x.onnx")


@pytest.mark.parametrize("length", [1, 30, 90, -2])
def test_a_file_that_is_cut_short_is_told(length: int) -> None:
    with pytest.raises(BackendError, match=r"x\.onnx is damaged: no ONNX model"):
        read_own_nodes(model()[:length], "x.onnx")
