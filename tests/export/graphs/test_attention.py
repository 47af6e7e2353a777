"""SlotAttention lowered in a whole graph: layers, forms and branches against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from tightrope.export.graphs.passes.attention import Lowering
from tightrope.export.graphs.passes.branch import by_length
from tightrope.export.graphs.passes.lower import lower
from tightrope.export.graphs.passes.simplify import tidy
from tightrope.export.tracing.trace import set_axes
from tightrope.interface.onnx import FLOAT, IR_VERSION, OPSET, OWN_DOMAIN, element_type
from tightrope.interface.tensors import Dims, TensorSpec, decoder_inputs, decoder_outputs
from tightrope.plugins.builder import OpBuilder
from tightrope.plugins.slot_attention import body_blocks
from tightrope.plugins.slot_attention.policies import POLICIES
from tightrope.plugins.slot_attention.reference import slot_attention

DIMS = Dims(
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    hidden_size=16,
    vocab_size=6,
)
LAYERS, HEADS, WIDTH, CAPACITY = 2, 2, 4, 12


def value(row: TensorSpec) -> ir.Value:
    kind = ir.TensorType(ir.DataType(element_type(row.dtype, FLOAT)))
    return ir.Value(name=row.name, type=kind, shape=ir.Shape(row.axes))


def toy(stages: int, windows: tuple[int, int] = (0, 0), reach: bool = False) -> ir.Model:
    """Two layers of SlotAttention on the same embeddings, without any weight.

    Query, key and value are the embeddings themselves, scaled by the layer. With stages nothing is
    dropped, but the layers answer one by one, as those of a schedule do. reach: of `Dims`.
    """
    dims = replace(DIMS, reach=reach)
    rows, promised = decoder_inputs(dims, stages), decoder_outputs(dims, stages)
    inputs = [value(row) for row in rows]
    named = {item.name: item for item in inputs}
    op, results = OpBuilder("toy"), []
    embeds = named["inputs_embeds"]
    for layer in range(LAYERS):
        scaled = op.Mul(embeds, np.float32(1 + layer))
        heads = op.Transpose(op.Reshape(scaled, [0, 0, 4, WIDTH]), perm=[0, 2, 1, 3])
        heads.type, heads.shape = embeds.type, ir.Shape(["N", 4, "S", WIDTH])
        key, rest = op.Split(heads, axis=1, num_outputs=2, outputs=2)
        for part in (key, rest):
            part.type, part.shape = embeds.type, ir.Shape(["N", HEADS, "S", WIDTH])
        slots = [named[f"slot_key.{layer}"], named[f"slot_value.{layer}"]]
        slots += [
            op.Gather(named[name], np.int64(layer), axis=0)
            for name in ("slot_score", "slot_position")
        ]
        own = [op.Gather(named[name], np.int64(layer), axis=0) for name in ("kv_budget", "policy")]
        outputs = op.SlotAttention(
            heads,
            key,
            rest,
            *slots,
            named["query_position"],
            *own,
            named.get("query_reach", named["query_position"]),
            outputs=4,
            domain=OWN_DOMAIN,
            scale=0.5,
            window=windows[layer],
        )
        results.append((outputs[0], key, rest, *outputs[1:]))
    out, key, rest, target, score, position = zip(*results, strict=True)
    last = op.ReduceSum(op.Concat(*out, axis=1), [1, 2, 3], keepdims=0)
    rope = op.Cast(op.ReduceSum(named["rope_position"], [1], keepdims=0), to=FLOAT)
    logits = op.Add(op.Unsqueeze(op.Add(last, rope), [1]), np.zeros((1, 6), np.float32))
    if stages:
        ramps = [op.Cast(named[f"keep_ramp.{i}"], to=FLOAT) for i in range(stages)]
        zero = op.Mul(op.ReduceSum(op.Concat(*ramps, axis=0), [0], keepdims=0), np.float32(0))
        visual = op.Mul(op.ReduceSum(op.Cast(named["visual_index"], to=FLOAT)), np.float32(0))
        logits = op.Add(logits, op.Add(zero, visual))
        outputs = [logits, *key, *rest, *target]
    else:
        outputs = [logits, *(op.stack(part) for part in (key, rest, target))]
    outputs += [op.stack(score), op.stack(position)]
    for item, row in zip(outputs, promised, strict=True):
        item.name, item.type = row.name, ir.TensorType(ir.DataType(element_type(row.dtype, FLOAT)))
    imports = {"": OPSET, OWN_DOMAIN: 1}
    graph = ir.Graph(inputs, outputs, nodes=op.nodes, opset_imports=imports, name="toy")
    model = ir.Model(graph, ir_version=IR_VERSION)
    set_axes(model, (*rows, *promised))
    return model


def lowered(
    form: Lowering, stages: int = 0, windows: tuple[int, int] = (0, 0), reach: bool = False
) -> ir.Model:
    model = toy(stages, windows, reach)
    lower(model, form)
    tidy(model)
    assert not [node for node in model.graph.all_nodes() if node.domain == OWN_DOMAIN]
    return model


def session(model: ir.Model) -> onnxruntime.InferenceSession:
    text = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])


def feeds(length: int, occupied: int, kv_budget: int, stages: int = 0) -> dict[str, Any]:
    """A call on slots of which the first are taken; the second row is padded behind."""
    rng = np.random.default_rng(length + occupied)
    place = np.tile(np.arange(40, 40 + length), (2, 1))
    if length > 1:
        place[1, -1] = -1
    lanes = (LAYERS, 2, HEADS, CAPACITY)
    position = np.full(lanes, -1, np.int32)
    for lane in np.ndindex(lanes[:3]):
        position[lane][:occupied] = rng.permutation(40)[:occupied]
    taken = position >= 0
    named: dict[str, Any] = {
        "inputs_embeds": rng.normal(size=(2, length, 16)).astype(np.float32),
        "query_position": place.astype(np.int32),
        "rope_position": place.astype(np.int64),
        "slot_score": (rng.random(lanes) * taken).astype(np.float32),
        "slot_position": position,
        "kv_budget": np.full((LAYERS, HEADS), kv_budget),
        # The layers differ in their policies, as per-layer windows will.
        "policy": np.stack([POLICIES["h2o"].vector(1, 2), POLICIES["snapkv"].vector(2, 3)]),
    }
    named["kv_budget"][1, 1] -= 1
    for layer in range(LAYERS):
        for name in ("slot_key", "slot_value"):
            rows = rng.normal(size=(2, HEADS, CAPACITY, WIDTH)).astype(np.float32)
            named[f"{name}.{layer}"] = rows * taken[layer][..., None]
    if stages:
        named["visual_index"] = np.zeros((2, 1), np.int64)
        named["keep_ramp.0"] = np.arange(1)
    return named


def expected(named: dict[str, Any], windows: tuple[int, int] = (0, 0)) -> list[Any]:
    """target, score and position of each layer, by the reference."""
    found = []
    for layer in range(LAYERS):
        heads = named["inputs_embeds"] * np.float32(1 + layer)
        heads = heads.reshape(*heads.shape[:2], 4, WIDTH).transpose(0, 2, 1, 3)
        found.append(
            slot_attention(
                heads,
                heads[:, :2],
                heads[:, 2:],
                named[f"slot_key.{layer}"],
                named[f"slot_value.{layer}"],
                named["slot_score"][layer],
                named["slot_position"][layer],
                named["query_position"],
                named["kv_budget"][layer],
                named["policy"][layer],
                named.get("query_reach"),
                scale=0.5,
                window=windows[layer],
            )[1:]
        )
    return found


def run(model: ir.Model, named: dict[str, Any]) -> dict[str, Any]:
    opened = session(model)
    names = [item.name for item in opened.get_outputs()]
    read = {item.name: named[item.name] for item in opened.get_inputs()}
    return dict(zip(names, opened.run(names, read), strict=True))


def agree(
    outputs: dict[str, Any], named: dict[str, Any], windows: tuple[int, int] = (0, 0)
) -> None:
    for layer, (target, score, position) in enumerate(expected(named, windows)):
        own = outputs[f"target.{layer}"] if "target.0" in outputs else outputs["target"][layer]
        np.testing.assert_array_equal(own, target)
        np.testing.assert_allclose(outputs["next_score"][layer], score, atol=5e-6, rtol=1e-5)
        np.testing.assert_array_equal(outputs["next_position"][layer], position)


CALLS: dict[Lowering, list[tuple[int, int, int]]] = {
    "general": [(4, 7, 9), (5, 0, 6), (3, 9, 12)],
    "step": [(1, 7, 9), (1, 9, 10), (1, 0, 7)],
    "lean": [(1, 7, 9), (1, 9, 10), (1, 0, 7)],
    "append": [(4, 7, 12), (5, 0, 12)],
    "either": [(4, 7, 12), (4, 9, 11), (6, 8, 10)],
}


@pytest.mark.parametrize("stages", [0, 1])
@pytest.mark.parametrize("reach", [False, True])
@pytest.mark.parametrize("form", CALLS)
def test_every_form_is_the_reference_stacked_and_by_layer(
    form: Lowering, stages: int, reach: bool
) -> None:
    model = lowered(form, stages, reach=reach)
    for length, occupied, kv_budget in CALLS[form]:
        named = feeds(length, occupied, kv_budget, stages)
        if reach:  # the tokens from the second on are those of an image
            place = named["query_position"]
            last = place.max(1, keepdims=True)
            named["query_reach"] = np.where(place > place[:, :1], last, place)
        agree(run(model, named), named)


@pytest.mark.parametrize("queries", [1, 2, 3, 4])
@pytest.mark.parametrize("reach", [False, True])
def test_blocks_of_queries_give_what_all_of_them_give(
    queries: int, reach: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, windows = feeds(6, 5, 12), (0, 6)
    if reach:
        place = named["query_position"]
        last = place.max(1, keepdims=True)
        named["query_reach"] = np.where(place > place[:, 1:2], last, place)
    whole = run(lowered("append", windows=windows, reach=reach), named)
    monkeypatch.setattr(body_blocks, "MOST_QUERIES", queries)
    blocks = run(lowered("either", windows=windows, reach=reach), named)
    agree(blocks, named, windows)
    for name, array in whole.items():
        np.testing.assert_allclose(blocks[name], array, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("windows", [(0, 0), (5, 0), (3, 30)])
@pytest.mark.parametrize("held", [(12, 12), (12, 9), (8, 12), (10, 9)])
def test_the_lean_step_takes_layers_that_differ_in_slots_and_in_what_they_see(
    held: tuple[int, int], windows: tuple[int, int]
) -> None:
    named = feeds(1, 8, 9)
    named["query_position"][1] = -1
    for layer, count in enumerate(held):
        for name in ("slot_key", "slot_value"):
            named[f"{name}.{layer}"] = named[f"{name}.{layer}"][:, :, :count]
    outputs = run(lowered("lean", windows=windows), named)
    agree(outputs, named, windows)
    same = run(lowered("general", windows=windows), named)
    assert outputs.keys() == same.keys()
    for name, array in same.items():
        np.testing.assert_allclose(outputs[name], array, atol=2e-5, err_msg=name)


def test_the_lean_step_decides_nothing_in_its_layers() -> None:
    graph = lowered("lean").graph
    kinds = [node.op_type for node in graph]
    assert kinds.count("If") == 2, "whether all layers have as many slots"
    between = a_layer(kinds)
    assert not {"If", "Where", "Gather", "Slice", "ReduceSum"} & set(between)
    assert len(between) < len(a_layer([node.op_type for node in lowered("step").graph]))


def a_layer(kinds: list[str]) -> list[str]:
    """The nodes from one layer's weights to the next one's, without constants."""
    first, last = (at for at, kind in enumerate(kinds) if kind == "Softmax")
    return [kind for kind in kinds[first:last] if kind != "Constant"]


def test_with_room_either_ranks_nothing_even_above_the_budget() -> None:
    named = feeds(4, 7, 9)
    outputs = run(lowered("either"), named)
    counts = (outputs["next_position"] >= 0).sum(-1)
    assert counts[:, 0].tolist() == [[11, 11]] * 2 and counts[:, 1].tolist() == [[10, 10]] * 2
    same = run(lowered("append"), {key: array for key, array in named.items()})
    np.testing.assert_array_equal(outputs["next_position"], same["next_position"])
    np.testing.assert_array_equal(outputs["target"], same["target"])


def test_appending_takes_fewer_nodes_and_no_topk() -> None:
    general, append = (lowered(form) for form in ("general", "append"))
    kinds = {node.op_type for node in append.graph.all_nodes()}
    assert "TopK" not in kinds and "If" not in kinds
    assert len(list(append.graph)) < len(list(general.graph))


@pytest.mark.parametrize(("length", "occupied", "kv_budget"), [(1, 9, 10), (4, 7, 12), (6, 8, 10)])
def test_one_graph_for_both_lengths_is_each_of_them(
    length: int, occupied: int, kv_budget: int
) -> None:
    both = by_length(lowered("lean"), lowered("either"))
    (choice,) = [node for node in both.graph if node.op_type == "If"]
    assert len(list(both.graph)) < 8, "all else stands in the branches"
    names = [out.name for node in both.graph.all_nodes() for out in node.outputs]
    assert len(names) == len(set(names)), "no branch uses a name of another graph"
    named = feeds(length, occupied, kv_budget)
    outputs = run(both, named)
    alone = run(lowered("lean" if length == 1 else "either"), named)
    for name, array in alone.items():
        np.testing.assert_array_equal(outputs[name], array, name)
    agree(outputs, named)
    assert choice.attributes["then_branch"].value.name == "step"


def test_weights_stand_once_outside_the_branches_and_int4_in_each() -> None:
    def weighted() -> ir.Model:
        x = ir.Value(
            name="query_position", type=ir.TensorType(ir.DataType.INT32), shape=ir.Shape(["N", "S"])
        )
        weights = []
        for name, layout in (("plain", "transposed"), ("codes", "codes")):
            weight = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
            weight.const_value = ir.Tensor(np.array([2], np.float32))
            weight.metadata_props["layout"] = layout
            weights.append(weight)
        op = OpBuilder("toy")
        out = op.Add(op.Mul(op.Cast(x, to=FLOAT), weights[0]), weights[1])
        out.name, out.type = "y", ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph(
            [x], [out], nodes=op.nodes, initializers=weights, opset_imports={"": OPSET}, name="w"
        )
        return ir.Model(graph, ir_version=IR_VERSION)

    both = by_length(weighted(), weighted())
    assert list(both.graph.initializers) == ["plain"]
    inside = [
        str(value.name) for graph in both.graph.subgraphs() for value in graph.initializers.values()
    ]
    assert sorted(inside) == ["general/codes", "step/codes"]
    for shape in ((1, 1), (2, 3)):
        (got,) = session(both).run(None, {"query_position": np.full(shape, 5, np.int32)})
        np.testing.assert_array_equal(got, np.full(shape, 12, np.float32))
