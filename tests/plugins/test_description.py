"""Ops as data: what kernels take, which are launched, where buffers lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tightrope import plugins
from tightrope.interface.tensors import Rows
from tightrope.plugins.description import Limit, Step, bound, given_rows, pointer_names
from tightrope.plugins.expressions import evaluate
from tightrope.plugins.ops import ops
from tightrope.plugins.tensorrt.calls import Values, output_shapes, queue, workspace_bytes

OPS = ops()
SLOTS = (
    *([(2, 6, 1, 64)], [(2, 2, 1, 64)] * 2, [(2, 2, 300, 64)] * 2, [(2, 2, 512)] * 2),
    *([(2, 1)], [(2,)], [(8,)], [(2, 1)]),
)
SHAPES = [shape for group in SLOTS for shape in group]
ATTRIBUTES = dict(OPS["SlotAttention"].schema.attributes)


class Noted:
    """A launcher that notes what it is asked for."""

    def __init__(self) -> None:
        self.launched: list[tuple[str, Values, int]] = []

    def launch(self, kernel: str, values: Any, stream: int) -> None:
        self.launched.append((kernel, values, stream))


def queued(
    shapes: Sequence[Sequence[int]], rows: Rows = OPS["SlotAttention"].schema.required
) -> list[tuple[str, Values, int]]:
    op, noted = OPS["SlotAttention"], Noted()
    pointers = list(range(1000, 1000 + len(rows))), list(range(2000, 2004)), 1 << 20
    queue(op, rows, ATTRIBUTES, shapes, pointers, (noted, 77))
    return noted.launched


def test_every_folder_with_a_plugin_is_an_op() -> None:
    folders = {file.parent.name for file in Path(plugins.__path__[0]).glob("*/schema.py")}
    assert folders == {file.parent.name for file in Path(plugins.__path__[0]).glob("*/plugin.py")}
    assert set(OPS) == {"SlotAttention", "SelectTokens", "VarlenAttention", "Int4MatMul"}
    assert all(name == op.schema.name for name, op in OPS.items())


@pytest.mark.parametrize(
    ("sizes", "activation", "said"),
    [
        ({"D": 64, "Hq": 16, "Hkv": 2, "pool_kernel": 5}, "float16", []),
        (
            {"D": 72, "Hq": 16, "Hkv": 2, "pool_kernel": 5},
            "float16",
            ["head_dim is 72, its kernels take 16 to 256, in multiples of 16"],
        ),
        (
            {"D": 512, "Hq": 9, "Hkv": 1, "pool_kernel": 5},
            "bfloat16",
            [
                "it computes in bfloat16, its kernels in float16",
                "head_dim is 512, its kernels take 16 to 256, in multiples of 16",
                "the number of query heads a KV head is 9, its kernels take 1 to 8",
            ],
        ),
    ],
)
def test_what_kernels_do_not_take_is_named_with_their_limits(
    sizes: dict[str, int], activation: str, said: list[str]
) -> None:
    assert list(OPS["SlotAttention"].refusals(sizes, activation)) == said


def test_an_odd_number_of_outputs_has_no_bytes_of_two_codes() -> None:
    said = list(OPS["Int4MatMul"].refusals({"block_size": 48, "Out": 7}, "float16"))
    assert said == [
        "block_size is 48, its kernels take 32 to 128, in multiples of 32",
        f"the number of outputs is 7, its kernels take 16 to {1 << 30}, in multiples of 16",
    ]


def test_a_step_and_a_prompt_launch_kernels_of_their_own() -> None:
    step = queued(SHAPES)
    assert [kernel for kernel, _, _ in step] == [
        "slot_attention_step_d64",
        "slot_attention_combine_d64",
    ]
    longer = [(2, 6, 9, 64), *[(2, 2, 9, 64)] * 2, *SHAPES[3:7], (2, 9), *SHAPES[8:10], (2, 9)]
    prompt = [kernel for kernel, _, _ in queued(longer)]
    assert len(prompt) == 3 and not {kernel for kernel, _, _ in step} & set(prompt)
    assert {stream for _, _, stream in step} == {77}


def test_slots_in_int8_launch_variants_that_read_scales() -> None:
    schema = OPS["SlotAttention"].schema
    rows = given_rows(schema, (1 << len(schema.inputs)) - 1)
    assert rows is not None and len(rows) == 13
    assert [row.name for row in rows if row.dtype == "int8"] == ["slot_key", "slot_value"]
    scales = [(2, 2, 300, 1)] * 2
    step = queued([*SHAPES, *scales], rows)
    assert [kernel for kernel, _, _ in step] == [
        "slot_attention_step_int8_d64",
        "slot_attention_combine_d64",
    ]
    assert step[0][1]["slot_key_scale"] == 1011 and step[0][1]["U"] == 300
    longer = [(2, 6, 9, 64), *[(2, 2, 9, 64)] * 2, *SHAPES[3:7], (2, 9), *SHAPES[8:10], (2, 9)]
    assert [kernel for kernel, _, _ in queued([*longer, *scales], rows)] == [
        "slot_attention_prefill_int8_d64",
        "slot_attention_mass_int8_d64",
        "slot_attention_place",
    ]
    # A scale without the other is no call of the op.
    assert given_rows(schema, (1 << 12) - 1) is None
    assert given_rows(schema, (1 << 11) - 1) == given_rows(schema, None) == schema.required


def test_what_a_kernel_asks_for_is_found_by_name() -> None:
    (_, values, _), *_ = queued(SHAPES)
    assert values["query"] == 1000 and values["query_reach"] == 1010
    assert values["slot_score"] == 1005 and values["next_slot_score"] == 2002
    assert (values["U"], values["C"], values["G"], values["splits"]) == (300, 512, 3, 2)
    assert values["scale"] == 1.0 and values["window"] == 0
    assert (values["shares"], values["peaks"]) == (1 << 20, (1 << 20) + 4 * 2 * 6 * 2 * 64)
    with pytest.raises(KeyError, match="nothing"):
        values["nothing"]
    named = Values(Step(kernel="k", values={"lanes": "N*Hkv"}), {}, {"N": 2, "Hkv": 3}, {})
    assert named["lanes"] == 6


def test_buffers_lie_apart_and_fit_the_workspace() -> None:
    op = OPS["SlotAttention"]
    sizes = op.all_sizes(op.schema.required, SHAPES, ATTRIBUTES)
    places = list(op.workspace(sizes).values())
    ends = [offset + size for offset, size in places]
    assert all(end <= start for end, (start, _) in zip(ends, places[1:], strict=False))
    assert all(offset % 256 == 0 for offset, _ in places)
    whole = workspace_bytes(op, op.schema.required, ATTRIBUTES, SHAPES)
    assert whole == ends[-1]


def test_shapes_of_outputs_follow_from_those_of_inputs() -> None:
    select, product = OPS["SelectTokens"], OPS["Int4MatMul"]
    rows = select.schema.inputs
    assert output_shapes(select, rows, {}, [(2, 40), (2, 30), (11,)]) == [(2, 21), (2, 11)]
    rows = product.schema.inputs[:3]
    shapes = [(3, 5, 64), (64, 12), (2, 24)]  # bytes of two codes
    assert output_shapes(product, rows, {"block_size": 32}, shapes) == [(3, 5, 24)]
    assert product.all_sizes(rows, shapes, {"block_size": 32})["rows"] == 15
    assert bound(rows, shapes)[0] == {"In": 64, "Out": 24}


def test_inputs_that_are_left_out_are_the_optional_ones() -> None:
    schema = OPS["Int4MatMul"].schema
    rows = given_rows(schema, 0b010111)
    assert rows is not None and [row.name for row in rows] == ["x", "weight", "scale", "shift"]
    assert given_rows(schema, 0b11) is None and given_rows(schema, None) == schema.inputs[:3]
    assert pointer_names(schema, rows) == (("x", "weight", "scale", "shift"), ("y",))


def test_limits_and_expressions() -> None:
    limit = Limit(what="group", size="Hq//Hkv", least=1, most=8)
    assert limit.refuses({"Hq": 8, "Hkv": 1}) == ""
    assert limit.refuses({"Hq": 9, "Hkv": 1}) == "group is 9, its kernels take 1 to 8"
    assert evaluate("S-V+K", {"S": 9, "V": 4, "K": 2}) == 7
