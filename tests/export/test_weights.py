"""The one weight file: what is written once, how it is rounded, and where graphs find it."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.errors import BundleError  # noqa: E402
from tightrope.export.coded import Coded, Form, Published, coded  # noqa: E402
from tightrope.export.config import PRECISIONS, ExportConfig  # noqa: E402
from tightrope.export.export import export  # noqa: E402
from tightrope.export.rounding import Rounding  # noqa: E402
from tightrope.export.weights import FILE, WeightFile  # noqa: E402
from tightrope.plugins.int4_matmul.reference import dequantize, quantize  # noqa: E402

NAME = "layers.0.weight"
ALIGNED = 4096


def graph(*layouts: str, dtype: ir.DataType = ir.DataType.FLOAT16, name: str = NAME) -> ir.Model:
    """A graph that asks for one parameter in some layouts."""
    values, nodes = [], []
    for layout in layouts:
        value = ir.Value(
            name=f"{name}.{layout}", type=ir.TensorType(dtype), shape=ir.Shape([64, 96])
        )
        value.metadata_props.update(parameter=f"model.{name}", layout=layout)
        values.append(value)
        nodes.append(ir.Node("", "Identity", [value]))
    outputs = [node.outputs[0] for node in nodes]
    built = ir.Graph([], outputs, nodes=nodes, initializers=values, name="graph")
    return ir.Model(built, ir_version=10)


def bound(model: ir.Model) -> dict[str, Any]:
    """Tensors of a graph's initializers by layout."""
    return {
        value.metadata_props["layout"]: value.const_value
        for value in model.graph.initializers.values()
    }


@pytest.fixture
def weight() -> Any:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(96, 64)).astype(np.float32))


def test_a_tensor_that_two_graphs_ask_for_is_written_once(tmp_path: Path, weight: Any) -> None:
    first, second = graph("plain", "transposed"), graph("transposed")
    with WeightFile(tmp_path, {NAME: weight}, PRECISIONS["fp32"], Rounding(32)) as file:
        for model in (first, second):
            file.bind(model)
    tensors = bound(first)
    assert bound(second)["transposed"].offset == tensors["transposed"].offset
    np.testing.assert_array_equal(tensors["plain"].numpy(), weight.numpy())
    np.testing.assert_array_equal(tensors["transposed"].numpy(), weight.numpy().T)
    size = (tmp_path / FILE).stat().st_size
    assert size == tensors["transposed"].offset + weight.numel() * 4


def test_every_tensor_begins_at_a_page(tmp_path: Path, weight: Any) -> None:
    model = graph("plain", "transposed", "codes", "scale")
    with WeightFile(tmp_path, {NAME: weight}, PRECISIONS["int4"], Rounding(32)) as file:
        file.bind(model)
    offsets = [tensor.offset for tensor in bound(model).values()]
    assert all(offset % ALIGNED == 0 for offset in offsets)
    assert len(set(offsets)) == 4


def test_half_precision_is_rounded_and_cast_where_a_graph_computes_wider(
    tmp_path: Path, weight: Any
) -> None:
    narrow, wide = graph("plain"), graph("plain", dtype=ir.DataType.FLOAT)
    with WeightFile(tmp_path, {NAME: weight}, PRECISIONS["fp16"], Rounding(32)) as file:
        for model in (narrow, wide):
            file.bind(model)
        rounded = file.rounded(NAME).numpy()
    np.testing.assert_array_equal(rounded, weight.numpy().astype(np.float16).astype(np.float32))
    assert bound(narrow)["plain"].dtype == ir.DataType.FLOAT16
    assert [node.op_type for node in narrow.graph] == ["Identity"]
    assert [node.op_type for node in wide.graph] == ["Cast", "Identity"]


@pytest.mark.parametrize("block_size", [32, 16])
def test_int4_is_read_back_as_the_reference_quantises_it(
    tmp_path: Path, weight: Any, block_size: int
) -> None:
    with WeightFile(tmp_path, {NAME: weight}, PRECISIONS["int4"], Rounding(block_size)) as file:
        assert not file.is_quantized(NAME)
        file.bind(graph("codes", "scale"))
        assert file.is_quantized(NAME)
        read = file.in_graphs(NAME).numpy()
        plain = file.rounded(NAME).numpy()
    codes, scale, _ = quantize(np.ascontiguousarray(weight.numpy().T), block_size)
    np.testing.assert_array_equal(read, dequantize(codes, scale).T)
    assert 0.01 < np.abs(read - plain).mean() < 0.2


def test_rotary_frequencies_stay_in_float32(tmp_path: Path) -> None:
    frequencies = torch.linspace(1e-6, 1, 16)
    with WeightFile(tmp_path, {"inv_freq": frequencies}, PRECISIONS["fp16"], Rounding(32)) as file:
        np.testing.assert_array_equal(file.rounded("inv_freq").numpy(), frequencies.numpy())


def test_weights_of_a_branch_are_bound_and_cast_there(tmp_path: Path, weight: Any) -> None:
    condition = ir.Value(name="c", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    branches = {}
    for scope in ("then_branch", "else_branch"):
        branches[scope] = graph("plain", dtype=ir.DataType.FLOAT).graph
        for value in list(branches[scope].initializers.values()):
            value.name = f"{scope}/{value.name}"
    node = ir.Node(
        "",
        "If",
        [condition],
        attributes=[ir.AttrGraph(scope, branch) for scope, branch in branches.items()],
        num_outputs=1,
    )
    outer = ir.Graph([condition], node.outputs, nodes=[node], name="outer")
    model = ir.Model(outer, ir_version=10)
    with WeightFile(tmp_path, {NAME: weight}, PRECISIONS["fp16"], Rounding(32)) as file:
        file.bind(model)
    found = [
        value.const_value
        for part in model.graph.subgraphs()
        for value in part.initializers.values()
    ]
    assert len(found) == 2 and found[0] is found[1]
    casts = [node for node in model.graph.all_nodes() if node.op_type == "Cast"]
    # Names that are made up on writing would be the same in both branches.
    names = {cast.outputs[0].name for cast in casts}
    assert len(casts) == 2 and len(names) == 2 and None not in names


def test_matrices_of_no_whole_blocks_stay_floats_and_are_counted(
    tmp_path: Path, weight: Any
) -> None:
    with WeightFile(
        tmp_path, {NAME: weight, "w": weight[:, :48]}, PRECISIONS["int4"], Rounding(32)
    ) as file:
        assert file.form(f"model.{NAME}") == Form(4, 32) and file.form("model.w") is None
        assert file.notes() == [
            "1 matrices stay float16: their inputs are no whole number of 32-blocks"
        ]


def test_a_checkpoints_own_codes_are_written_and_nothing_else_is_quantised(
    tmp_path: Path, weight: Any
) -> None:
    rng = np.random.default_rng(4)
    levels = rng.integers(0, 16, (96, 64))
    scale = rng.uniform(0.01, 0.02, (96, 2)).astype(np.float32)
    read = coded("w", levels, 4, scale, -(8 + rng.integers(0, 2, scale.shape)) * scale)
    parameters = {NAME: torch.from_numpy(read.weight()), "plain": weight, "other": weight}
    published = {NAME: Published("Q4", lambda: read), "other": Published("IQ4_XS", None)}
    asked = graph("codes", "scale", "zero", "shift")
    with WeightFile(tmp_path, parameters, PRECISIONS["int4"], Rounding(32), published) as file:
        assert file.form(NAME) == Form(4, 32, zero=True)
        assert file.form("plain") is None and file.form("other") is None
        file.bind(asked)
        np.testing.assert_array_equal(file.in_graphs(NAME).numpy(), read.weight())
        assert file.notes() == []
    stored = file.stored()
    assert stored[NAME].how == "int4 by 32 with zero points (Q4)"
    parts = {name: tensor.numpy() for name, tensor in bound(asked).items()}
    # What graphs without zeros read of it.
    shift = -parts["zero"].astype(np.float32) * parts["scale"].astype(np.float32)
    np.testing.assert_allclose(parts["shift"].astype(np.float32), shift, rtol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_without_int4_a_checkpoints_codes_are_floats(
    tmp_path: Path, weight: Any, precision: str
) -> None:
    def never() -> Coded:
        raise AssertionError

    published = {NAME: Published("Q4", never)}
    with WeightFile(
        tmp_path, {NAME: weight}, PRECISIONS[precision], Rounding(32), published
    ) as file:
        assert file.form(NAME) is None and file.notes() == []


def test_codes_that_no_product_has_are_quantised_again_and_that_is_said(
    tmp_path: Path, weight: Any
) -> None:
    published = {NAME: Published("IQ2_XXS", None), "norm": Published("F32", None)}
    with WeightFile(tmp_path, {NAME: weight}, PRECISIONS["int4"], Rounding(32), published) as file:
        assert file.form(NAME) == Form(4, 32)
        (note,) = file.notes()
        assert file.stored()[NAME].how == "int4 by 32"
    assert "(IQ2_XXS) have no product here" in note and "quantised again" in note


def test_a_disk_that_fills_while_weights_stream_is_told_and_nothing_is_left(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = checkpoint("llama")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as a full disk would
    try:
        with pytest.raises(BundleError, match=r"weights\.data cannot grow beyond .* MB, at ") as e:
            export(source, tmp_path / "m.bundle", ExportConfig(precision="fp32"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "make room, or choose another place" in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_a_parameter_is_read_back_from_the_file_as_it_was_written(
    tmp_path: Path,
) -> None:
    """In pieces: those of a large matrix are not what it is rounded in."""
    large = torch.from_numpy(np.random.default_rng(2).normal(size=(1100, 4096))).float()
    rounding = Rounding(64, symmetric=False)
    with WeightFile(tmp_path, {NAME: large}, PRECISIONS["int4"], rounding) as file:
        file.bind(graph("codes", "scale", "zero", "plain", "transposed"))
        read, wanted = file.in_graphs(NAME).numpy(), rounding.coded(NAME, large).weight()
        np.testing.assert_array_equal(read, wanted)
        model = graph("plain", "transposed")
        file.bind(model)
    parts = bound(model)
    half = large.numpy().astype(np.float16)
    np.testing.assert_array_equal(parts["plain"].numpy(), half)
    np.testing.assert_array_equal(parts["transposed"].numpy(), half.T)
