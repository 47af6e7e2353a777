"""What we ask of TensorRT exists in the versions that boards have: NVIDIA's own bindings say so."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tightrope.interface.onnx import OWN_DOMAIN, OWN_OPSET
from tightrope.plugins.ops import ops

HERE = Path(__file__).parent
VERSIONS = ("10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
OF_RTX_ALONE = {
    "ComputeCapability",
    "IBuilderConfig.num_compute_capabilities cannot be set",
    "IBuilderConfig.set_compute_capability",
}
"""TensorRT for RTX builds for a chip that is not at hand; on a board there is but one."""


@pytest.fixture(scope="module")
def folder_of(module_of: Callable[[Path], ModuleType]) -> Callable[[str], Path]:
    return module_of(HERE / "fetch_bindings.py").folder_of  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """`stand_ins("10")`: libraries of that major version that do nothing."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("stand_ins")

    def make(major: str) -> list[str]:
        files = []
        for library in LIBRARIES:
            name = f"lib{library}.so.{major}"
            if not (folder / name).exists():
                options = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
                subprocess.run([compiler, *options, str(HERE / "stand_in.c")], check=True)
            files.append(str(folder / name))
        return files

    return make


@pytest.fixture(scope="module")
def resolved(
    folder_of: Callable[[str], Path], stand_ins: Callable[[str], list[str]]
) -> Callable[[str], dict[str, Any]]:
    """`resolved("10.3.0")`: what our builder asked of that version."""

    def ask(version: str) -> dict[str, Any]:
        folder = folder_of(version)
        if not folder.is_dir():
            pytest.skip(f"bindings {version} are not here: run `make fetch-tensorrt-bindings`")
        libraries = stand_ins(version.partition(".")[0])
        command = [sys.executable, str(HERE / "resolve.py"), str(folder), *libraries]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        return told

    return ask


@pytest.mark.parametrize("version", VERSIONS)
def test_all_that_builds_a_graph_and_runs_an_engine_is_in_the_bindings(
    version: str, resolved: Callable[[str], dict[str, Any]]
) -> None:
    told = resolved(version)
    assert told["version"].startswith(version.rpartition(".")[0])
    built, refused = told["results"]
    assert built == "" and refused.startswith("does not parse"), "the program ran to both its ends"
    asked = {"Builder", "OnnxParser.parse_from_file", "IOptimizationProfile.set_shape"}
    asked |= {"OnnxParser.get_error"}
    asked |= {"Runtime.deserialize_cuda_engine", "IExecutionContext.execute_async_v3"}
    asked |= {"IExecutionContext.get_tensor_shape", "ExecutionContextAllocationStrategy"}
    assert asked <= set(told["asked"])
    assert set(told["missing"]) == OF_RTX_ALONE


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fake_tensorrt_has_no_names_of_its_own(
    version: str, resolved: Callable[[str], dict[str, Any]]
) -> None:
    assert resolved(version)["made_up"] == []


def test_what_is_not_there_is_noted(module_of: Callable[[Path], ModuleType]) -> None:
    """The recorder itself, on a module that is made up."""

    class Network:
        @property
        def num_layers(self) -> int:
            """(self: trt.Network) -> int"""
            raise AssertionError("nothing is computed")

    class Builder:
        def __init__(self) -> None:
            """__init__(self: trt.Builder, logger: trt.ILogger) -> None"""

        def create_network(self) -> None:
            """create_network(self: trt.Builder, flags: int = 0) -> trt.Network"""

    made = ModuleType("trt")
    made.Builder, made.Network = Builder, Network  # type: ignore[attr-defined]
    recorder = module_of(HERE / "recorder.py").Recorder(made, {})
    network = recorder.Builder("logger").create_network(flags=1)
    assert network.num_layers == 1 and recorder.missing == []
    network.num_layers = 2
    network.no_such_thing()
    recorder.Builder()
    recorder.Builder("logger").create_network(1, 2)
    recorder.Builder("logger").create_network(options=2)
    recorder.Runtime("logger")
    assert [entry.partition(" is not ")[0] for entry in recorder.missing] == [
        "Network.num_layers cannot be set",
        "Network.no_such_thing",
        "Builder.__init__()",
        "Builder.create_network(_, _)",
        "Builder.create_network(options=)",
        "Runtime",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_is_built_the_way_that_a_version_has(
    version: str, resolved: Callable[[str], dict[str, Any]]
) -> None:
    told = resolved(version)
    assert told["built"] == ["plan", "measured"]
    asked = {"IBuilderConfig.set_timing_cache", "IBuilderConfig.max_aux_streams"}
    asked |= {"ITimingCache.serialize"}
    if version != "10.3.0":
        asked |= {"OnnxParser.load_initializer", "OnnxParser.parse_model_proto"}
    assert asked <= set(told["asked"])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_own_op_lives_on_the_real_base_classes(
    version: str, resolved: Callable[[str], dict[str, Any]]
) -> None:
    """Made by its creator, asked as a builder asks, kept as fields, made again, queued."""
    told = resolved(version)
    assert set(told["plugins"]) == set(ops())
    for name, (creator, fields, life) in told["plugins"].items():
        schema = ops()[name].schema
        assert creator == [name, OWN_DOMAIN, str(OWN_OPSET)]
        optional = ["given"] if schema.optional else []
        assert fields == [*schema.attributes, *optional]
        who, takes, types, kept, workspace, kernels = life
        assert who == [*creator, len(schema.outputs)]
        assert takes and kept == fields and len(types) == len(schema.outputs)
        assert kernels and (workspace > 0) == bool(ops()[name].buffers)
    asked = {"get_plugin_registry", "IPluginRegistry.register_creator", "IExprBuilder.operation"}
    asked |= {"IExprBuilder.constant", "PluginField", "PluginFieldType", "IPluginV3OneRuntime"}
    asked |= {"IExecutionContext.set_optimization_profile_async"}
    assert asked <= set(told["asked"])
