"""Families whose matrices are joined, by the model's own code or by its loader, in codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.config import PRECISIONS  # noqa: E402
from tightrope.export.late import LateModel  # noqa: E402
from tightrope.export.rounding import Rounding  # noqa: E402
from tightrope.export.weights import WeightFile  # noqa: E402

HERE = Path(__file__).parents[2]
CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False}
WIDTHS: dict[str, dict[str, Any]] = {
    "phi3": {"hidden_size": 96, "intermediate_size": 64, "rope_parameters": {"rope_theta": 1e4}},
    "qwen3_moe": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "moe_intermediate_size": 32,
    },
}
"""Whole numbers of groups, of families whose small models have odd widths."""


@pytest.fixture
def read(
    module_of: Callable[[Path], ModuleType], tmp_path: Path
) -> Callable[[str], tuple[LateModel, dict[str, Any]]]:
    """`read("phi3")`: a checkpoint in codes as it is read, and the weights that it means."""

    def make(name: str) -> tuple[LateModel, dict[str, Any]]:
        model_type, fields = module_of(HERE / "text_families.py").fields_of(name)
        build = module_of(HERE / "checkpoints.py").text_family
        build(tmp_path / "checkpoint", model_type, fields | WIDTHS[name])
        written = module_of(HERE / "quantised_files.py")
        weights = written.replace_matrices(
            tmp_path / "checkpoint",
            CONFIG,
            lambda rng, inputs, outputs: written.gptq(rng, inputs, outputs, 32, symmetric=False),
        )
        means = {key: value.astype(np.float32) for key, value in weights.items()}
        return open_checkpoint(tmp_path / "checkpoint").late_model(), means

    return make


def test_matrices_that_a_model_has_in_one_stay_in_codes(
    read: Callable[[str], tuple[LateModel, dict[str, Any]]],
) -> None:
    late, means = read("phi3")
    assert late.published.keys() == means.keys()
    kinds = {name.split(".")[-2] for name in means}
    assert kinds == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
    for name, weight in means.items():
        entry = late.published[name]
        assert entry.read is not None
        np.testing.assert_array_equal(entry.read().weight(), weight)
        np.testing.assert_array_equal(late.parameters[name].numpy(), weight)


def test_matrices_of_experts_are_read_and_become_floats_and_that_is_said(
    read: Callable[[str], tuple[LateModel, dict[str, Any]]], tmp_path: Path
) -> None:
    late, means = read("qwen3_moe")
    alone = {name for name in means if ".experts." not in name}
    assert late.published.keys() == alone and len(alone) == 3 * 4 + 3
    for own_name in alone:
        np.testing.assert_array_equal(late.parameters[own_name].numpy(), means[own_name])
    name = "model.layers.{}.mlp.experts.{}".format
    parts = ("gate_proj", "up_proj")
    for layer in (0, 2):
        for expert in range(5):
            own = {
                part: means[name(layer, f"{expert}.{part}.weight")]
                for part in (*parts, "down_proj")
            }
            joined = late.parameters[name(layer, "gate_up_proj")][expert].numpy()
            np.testing.assert_array_equal(joined, np.concatenate([own[part] for part in parts]))
            down = late.parameters[name(layer, "down_proj")][expert].numpy()
            np.testing.assert_array_equal(down, own["down_proj"])
    precision = PRECISIONS["int4"]
    asked = name(0, "down_proj")
    with WeightFile(tmp_path, late.parameters, precision, Rounding(32), late.published) as file:
        file.bind(graph_of(asked, late.parameters[asked]))
        assert file.stored()[asked].how == "float16"
        assert file.notes() == ["1 parameters stay float16: they are of experts"]


def graph_of(name: str, value: Any) -> Any:
    """A graph that reads one parameter."""
    import onnx_ir as ir

    kind, shape = ir.TensorType(ir.DataType.FLOAT16), ir.Shape(value.shape)
    entry = ir.Value(name=f"model.{name}", type=kind, shape=shape)
    graph = ir.Graph([], [entry], nodes=[], initializers=[entry], name="one")
    return ir.Model(graph, ir_version=10)
