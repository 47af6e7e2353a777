"""Which graph files a bundle has, and what the manifest and the parity check say of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.bundle import Bundle
from tightrope.errors import UnsupportedModel
from tightrope.export import parity
from tightrope.export.checkpoint import open_checkpoint
from tightrope.export.config import ExportConfig
from tightrope.export.graphs.files import GraphFile, graph_files
from tightrope.export.recipe import plan
from tightrope.export.rounding import Rounding
from tightrope.export.weights import WeightFile
from tightrope.interface.names import GraphName

Find = Callable[[str], Path]


def files_of(checkpoint: Find, name: str, **config: Any) -> dict[str, GraphFile]:
    recipe = plan(open_checkpoint(checkpoint(name)), ExportConfig(**config))
    return {str(file.name): file for file in graph_files(recipe)}


def test_a_text_model_has_three_graphs(checkpoint: Find) -> None:
    found = files_of(checkpoint, "llama")
    forms = {name: file.form for name, file in found.items()}
    assert forms == {
        "host.decoder": "both",
        "standard.prefill": "append",
        "standard.decode": "step",
    }
    assert [name for name, file in found.items() if file.single] == ["standard.decode"]


def test_a_model_that_sees_has_its_tower_and_selectors_twice_and_a_schedule_its_prefills(
    checkpoint: Find,
) -> None:
    found = files_of(checkpoint, "llava", schedules=("fastv",), selectors=("divprune",))
    assert sorted(found) == [
        "host.decoder",
        "host.decoder-fastv",
        "host.select-divprune",
        "host.vision",
        "standard.decode",
        "standard.prefill",
        "standard.prefill-fastv",
        "standard.select-divprune",
        "standard.vision",
    ]
    assert found["host.decoder-fastv"].form == "either"
    assert found["standard.prefill-fastv"].trace == ("decoder", "fastv")


@pytest.mark.parametrize("name", ["llama", "llava"])
def test_a_bundle_holds_the_files_of_the_list_and_the_manifest_describes_them(
    name: str, bundle: Find, checkpoint: Find
) -> None:
    options: dict[str, Any] = {"precision": "fp32"}
    if name == "llava":
        options |= {"schedules": ("fastv",), "resolutions": (56, 84, 28)}
    manifest = Bundle.open(bundle(name)).manifest
    listed = set(files_of(checkpoint, name, **options))
    written = {str(GraphName.parse(file)) for file in manifest.files if file.endswith(".onnx")}
    assert written == listed
    assert set(manifest.standard_ops) == {name for name in listed if name.startswith("standard.")}
    assert "TopK" not in manifest.standard_ops["standard.prefill"]
    assert manifest.source.name == checkpoint(name).name
    assert manifest.parity is not None and manifest.parity.equal_tokens == 9
    assert manifest.exporter.keys() == {"tightrope", "torch", "transformers"}
    assert manifest.activations == manifest.embeddings == "float32"


def test_a_graph_with_another_weight_fails_parity(
    bundle: Find, checkpoint: Find, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle("llama"), tmp_path / "spoiled"))
    recipe = plan(open_checkpoint(checkpoint("llama")), ExportConfig(precision="fp32"))
    (tmp_path / "again").mkdir()

    def measured() -> Any:
        late = recipe.checkpoint.late_model()
        rounding = Rounding(32)
        with WeightFile(tmp_path / "again", late.parameters, recipe.precision, rounding) as weights:
            return parity.measure(recipe, late, weights, folder)

    assert measured().logits < 1e-4
    graph = ir.load(folder / GraphName("host", "decoder").file)
    name, tensor = next(
        (name, value.const_value)
        for name, value in graph.graph.initializers.items()
        if "down_proj" in name and value.const_value is not None
    )
    data = np.memmap(folder / "graphs" / "weights.data", np.uint8, "r+")
    begin = tensor.offset  # external, as every weight is
    spoiled = tensor.numpy() * np.float32(1.01)
    data[begin : begin + spoiled.nbytes] = np.frombuffer(spoiled.tobytes(), np.uint8)
    data.flush()
    with pytest.raises(UnsupportedModel, match="differs from the model by"):
        measured()
    assert name


def test_a_step_on_onnx_runtime_moves_and_decides_nothing_in_its_layers(bundle: Find) -> None:
    graph = ir.load(bundle("llama") / GraphName("host", "decoder").file).graph
    (choice,) = [node for node in graph if node.op_type == "If"]
    step = choice.attributes["then_branch"].as_graph()
    kinds = [node.op_type for node in step]
    layers = Bundle.open(bundle("llama")).manifest.dims.num_hidden_layers
    assert kinds.count("FusedMatMul") == 2 * layers and kinds.count("Softmax") == layers
    assert kinds.count("If") == 2
    places = [at for at, kind in enumerate(kinds) if kind == "Softmax"]
    assert not {"If", "Transpose", "Where", "Slice"} & set(kinds[places[0] : places[-1]])
