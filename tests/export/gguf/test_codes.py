"""Quantised GGUF files as they stand: codes held against the package gguf, and their bundles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")
gguf = pytest.importorskip("gguf", reason="exporting needs gguf")

from tightrope.bundle import Bundle  # noqa: E402
from tightrope.errors import UnsupportedModel  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.config import ExportConfig  # noqa: E402
from tightrope.export.export import export  # noqa: E402
from tightrope.export.gguf.codes import KINDS, coded_of  # noqa: E402
from tightrope.interface.names import GraphName  # noqa: E402

Make = Callable[..., tuple[Any, Path]]
INT4 = ExportConfig(precision="int4", slots=256, prefill_chunk=64)
EXACT = {"Q4_0", "Q5_0", "Q8_0", "Q6_K"}
"""Without minima a weight is one product: nothing is rounded twice."""


def random_codes(name: str, rows: int, weights: int, seed: int = 0) -> Any:
    """Bytes of a matrix [rows, weights]; as float16 all of them are finite and of either sign."""
    kind = gguf.GGMLQuantizationType[name]
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (rows, weights // block, block_bytes), np.uint8)
    scales = {"Q4_K": 2, "Q5_K": 2, "Q4_1": 2, "Q5_1": 2}.get(name, 1)
    halves = rng.normal(0, 0.01, (rows, weights // block, scales)).astype(np.float16)
    halves[rng.random(halves.shape) < 0.05] = 0
    place = slice(208, 210) if name == "Q6_K" else slice(0, 2 * scales)
    codes[..., place] = halves.view(np.uint8)
    if name == "Q8_0":  # as quantisers do: a code and its negative, whatever the scale's sign
        codes[..., 2:][codes[..., 2:] == 128] = 127
    return codes.reshape(rows, -1)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_codes_are_what_the_file_means(name: str, seed: int) -> None:
    data = random_codes(name, 7, 512, seed)
    wanted = gguf.dequantize(data, gguf.GGMLQuantizationType[name])
    read = coded_of("w", data, name).weight()
    assert np.abs(wanted).max() > 0.01
    if name in EXACT:
        np.testing.assert_array_equal(read, wanted)
    # A minimum is added once here and once there: the last bit of the larger one may differ.
    np.testing.assert_allclose(read, wanted, rtol=0, atol=2**-23 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["Q4_1", "Q5_1"])
def test_what_a_quantiser_writes_is_read_to_the_bit(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    weight = np.random.default_rng(0).normal(0, 0.1, (8, 512)).astype(np.float32)
    data = gguf.quantize(weight, kind)
    np.testing.assert_array_equal(coded_of("w", data, name).weight(), gguf.dequantize(data, kind))


OF_LAYER = {
    "attn_q": "Q4_1",
    "attn_k": "Q4_0",
    "attn_v": "Q8_0",
    "attn_output": "Q5_0",
    "ffn_gate": "Q4_K",
    "ffn_up": "Q6_K",
    "ffn_down": "Q5_K",
}


@pytest.fixture(scope="module")
def mixed(
    gguf_files: ModuleType, vocabulary: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """The folder of a bundle whose file has a kind for each matrix of a layer, and its summary."""
    config = gguf_files.config_of("llama", hidden_size=256, intermediate_size=512)
    model = gguf_files.model_of(config)
    tensors = gguf_files.tensors_of(model, "llama")
    for name, value in tensors.items():
        kind = OF_LAYER.get(name.split(".")[-2])
        if kind is not None and value.ndim == 2:
            rows, width = value.shape
            codes = random_codes(kind, rows, width, len(name))
            tensors[name] = gguf_files.Coded(codes, gguf.GGMLQuantizationType[kind])
    folder = tmp_path_factory.mktemp("mixed")
    keys = gguf_files.keys_of(model, "llama") | vocabulary
    file = gguf_files.write(folder / "m.gguf", keys, tensors)
    return folder / "m.bundle", export(file, folder / "m.bundle", INT4)


def test_a_bundle_keeps_the_files_numbers_and_says_how(mixed: tuple[Any, Any]) -> None:
    _, summary = mixed
    assert summary.weights["attention"].stored == {
        "int4 by 32 with minima (Q4_1)": 2,
        "int4 by 32 with zero points (Q4_0)": 2,
        "int8 by 32, float16 for TensorRT (Q8_0)": 2,
        "int8 by 32, float16 for TensorRT (Q5_0)": 2,
    }
    assert summary.weights["mlp"].stored == {
        "int4 by 32 with minima (Q4_K)": 2,
        "int8 by 16, float16 for TensorRT (Q6_K)": 2,
        "int8 by 32 with minima, float16 for TensorRT (Q5_K)": 2,
    }
    assert summary.weights["head"].stored == {"float16": 1}
    assert any("int8 are fast from ONNX Runtime 1.25" in note for note in summary.notes)
    # The codes are the file's numbers: what is rounded are floats.
    assert summary.weights["attention"].logit_error < 1e-5
    assert summary.weights["mlp"].logit_error < 1e-5
    assert 0 < summary.weights["head"].logit_error < 1e-3
    parity = summary.parity
    assert parity.logits <= parity.allowed and parity.equal_tokens == parity.tokens
    # Norms, embeddings and the head are float16; the codes' numbers are the file's.
    assert parity.stored_weights < 2e-3


def test_onnx_runtime_makes_one_product_of_each_matrix(
    mixed: tuple[Any, Any], tmp_path: Path
) -> None:
    graphs = Bundle.open(mixed[0])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        str(graphs.graph(GraphName("host", "decoder"))),
        options,
        providers=["CPUExecutionProvider"],
    )
    graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    (choice,) = [node for node in graph.node if node.op_type == "If"]
    for branch in choice.attribute:
        kinds = [node.op_type for node in branch.g.node]
        assert kinds.count("MatMulNBits") == 2 * len(OF_LAYER)
        assert "DequantizeLinear" not in kinds


def test_graphs_for_tensorrt_have_no_zeros_and_no_codes_of_eight_bits(
    mixed: tuple[Any, Any],
) -> None:
    path = Bundle.open(mixed[0]).graph(GraphName("standard", "decode"))
    graph = onnx.load(path, load_external_data=False).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    assert len(products) == 2 * sum(kind.startswith("Q4") for kind in OF_LAYER.values())
    for node in products:
        assert len(node.input) == 2 and types[node.input[0]] == onnx.TensorProto.INT4


def test_a_scale_that_is_no_number_names_its_tensor(gguf_files: ModuleType, make: Make) -> None:
    down, kind = "blk.1.ffn_down.weight", gguf.GGMLQuantizationType.Q4_1

    def spoil(tensors: dict[str, Any]) -> None:
        codes = gguf.quantize(tensors[down], kind)
        codes[0, :2] = np.array([np.nan], np.float16).view(np.uint8)
        tensors[down] = gguf_files.Coded(codes, kind)

    _, file = make("llama", edit=spoil)
    opened = open_checkpoint(file)
    published = opened.late_model().published
    read = published["model.layers.1.mlp.down_proj.weight"].read
    assert read is not None
    with pytest.raises(UnsupportedModel, match=rf"{down} has scales or minima that are NaN"):
        read()


@pytest.mark.slow
def test_graphs_of_published_codes_build_in_a_real_tensorrt_parser(mixed: tuple[Any, Any]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    from tightrope.export.check.rtx import check_bundle

    results = check_bundle(mixed[0])
    assert {result.graph: result.message for result in results if not result.ok} == {}
