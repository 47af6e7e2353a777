"""A head that is too wide for one product: the same numbers in parts, however it is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.bundle import Bundle  # noqa: E402
from tightrope.export.coded import Coded, Published, coded  # noqa: E402
from tightrope.export.config import PRECISIONS, ExportConfig  # noqa: E402
from tightrope.export.export import export  # noqa: E402
from tightrope.export.graphs.passes import linear  # noqa: E402
from tightrope.export.graphs.passes.eight_bit import to_int8  # noqa: E402
from tightrope.export.graphs.passes.linear import (  # noqa: E402
    MOST_COLUMNS,
    column_parts,
    store_transposed,
    to_codes,
)
from tightrope.export.graphs.passes.lower import lower  # noqa: E402
from tightrope.export.graphs.passes.wide import split_wide  # noqa: E402
from tightrope.export.rounding import Rounding  # noqa: E402
from tightrope.export.weights import WeightFile  # noqa: E402
from tightrope.interface.names import GraphName  # noqa: E402
from tightrope.interface.onnx import FLOAT, IR_VERSION, OPSET  # noqa: E402
from tightrope.runtime.backends.onnxruntime_cuda import StandardGraphs  # noqa: E402
from tightrope.runtime.model import Model, load  # noqa: E402

NAME = "lm_head.weight"
INPUTS, TOKENS = 64, 200


@given(st.integers(1, 400_000))
def test_parts_follow_each_other_and_none_is_too_wide(columns: int) -> None:
    parts = column_parts(columns)
    assert [0, *(part.stop for part in parts)] == [*(part.start for part in parts), columns]
    widths = [part.stop - part.start for part in parts]
    assert max(widths) <= MOST_COLUMNS and len(parts) == -(-columns // MOST_COLUMNS)
    assert len(parts) == 1 or all(part.start % 64 == 0 for part in parts)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MOST_COLUMNS", 64)


def head() -> ir.Model:
    """Products of x [N,S,64] with a matrix of 200 tokens, as torch's exporter leaves them."""
    x, weight = (
        ir.Value(name=name, type=ir.TensorType(ir.DataType(FLOAT)), shape=ir.Shape(shape))
        for name, shape in (("x", ["N", "S", INPUTS]), (f"model.{NAME}", [TOKENS, INPUTS]))
    )
    turned = ir.Node("", "Transpose", [weight], attributes=[ir.AttrInt64s("perm", [1, 0])])
    product = ir.Node("", "MatMul", [x, turned.outputs[0]])
    product.outputs[0].name = "y"
    product.outputs[0].type = ir.TensorType(ir.DataType(FLOAT))
    nodes, imports = [turned, product], {"": OPSET}
    graph = ir.Graph(
        [x], product.outputs, nodes=nodes, initializers=[weight], opset_imports=imports, name="head"
    )
    model = ir.Model(graph, ir_version=IR_VERSION)
    store_transposed(model)
    split_wide(model)
    return model


def published(bits: int) -> Coded:
    """As a checkpoint has it, with minima that are no whole number of steps."""
    rng = np.random.default_rng(bits)
    levels = rng.integers(0, 1 << bits, (TOKENS, INPUTS))
    scale, minimum = rng.uniform(0.01, 0.02, (2, TOKENS, INPUTS // 32)).astype(np.float16)
    read: Any = coded(NAME, levels, bits, scale.astype(np.float32), -minimum.astype(np.float32))
    assert isinstance(read, Coded) and read.bits == bits
    return read


@pytest.mark.parametrize("how", ["fp32", "fp16", "int4", "a checkpoint's int4", "its int8"])
@pytest.mark.parametrize("host", [True, False])
def test_a_head_in_parts_is_the_matrix_that_was_written(
    how: str, host: bool, narrow: None, tmp_path: Path
) -> None:
    weight = np.random.default_rng(1).normal(size=(TOKENS, INPUTS)).astype(np.float32)
    own = {}
    if " " in how:
        read = published(4 if "int4" in how else 8)
        own, weight = {NAME: Published("Q", lambda: read)}, read.weight()
    precision = PRECISIONS[how if how in PRECISIONS else "int4"]
    given, model = {NAME: torch.from_numpy(weight)}, head()
    with WeightFile(tmp_path, given, precision, Rounding(32), own) as file:
        to_codes(model, file.form, host)
        lower(model, "general")
        file.bind(model)
        exact = file.is_quantized(NAME) and (host or how != "its int8")
        wanted = file.in_graphs(NAME) if exact else file.rounded(NAME)
        parts = [value.const_value for value in model.graph.initializers.values()]
        (size,) = (part.bytes for part in file.stored().values())
        assert sum(part.nbytes for part in parts if part is not None) <= size
    ir.save(model, tmp_path / "head.onnx")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(
        str(tmp_path / "head.onnx"), options, providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(2).normal(size=(3, 2, INPUTS)).astype(np.float32)
    (found,) = session.run(None, {"x": x})
    np.testing.assert_allclose(found, x @ wanted.numpy().T, rtol=1e-4, atol=2e-3)
    kinds = [node.op_type for node in model.graph]
    shifted = host is False or how in ("a checkpoint's int4", "its int8")
    assert kinds.count("MatMul") in ((4, 8) if shifted else (4,)) and kinds[-1] == "Concat"


def test_what_was_cut_stays_a_float_in_an_int8_tower(narrow: None) -> None:
    model = head()
    to_int8(model)
    assert [node.op_type for node in model.graph] == ["MatMul"] * 4 + ["Concat"]


def test_a_bundle_with_a_tied_head_in_parts_answers_as_one_with_a_whole_head(
    checkpoint: Callable[[str], Path],
    loaded: Callable[[str], Model],
    tmp_path: Path,
) -> None:
    whole, folder = loaded("qwen2"), tmp_path / "parts.bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "MOST_COLUMNS", 128)
        export(checkpoint("qwen2"), folder, ExportConfig(precision="fp32", prefill_chunk=32))
    opened = Bundle.open(folder)
    tokens = opened.manifest.dims.vocab_size
    assert opened.manifest.head_columns == 128 < tokens
    assert whole.bundle.manifest.head_columns is None
    assert opened.manifest.weights["head"].bytes == whole.bundle.manifest.weights["head"].bytes
    for role in ("prefill", "decode"):
        graph = ir.load(folder / GraphName("standard", role).file).graph
        cut = [name for name in graph.initializers if ".weight.transposed." in name]
        assert len(cut) == -(-tokens // 128), cut
    ids = np.random.default_rng(0).integers(5, 200, 20).tolist()
    wanted = whole.generate(ids, max_tokens=12, ignore_eos=True).token_ids
    for model in (load(folder, "onnxruntime", 1), Model(opened, StandardGraphs(opened, 1, "cpu"))):
        assert model.generate(ids, max_tokens=12, ignore_eos=True).token_ids == wanted
