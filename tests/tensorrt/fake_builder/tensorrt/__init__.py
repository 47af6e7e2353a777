"""A stand-in for TensorRT's builder behind its own names: a plan says what it would have built.

It is as strict as the real one where that is known: a graph without a profile does not build, and
an input that no node reads is warned of. `FAKE_TENSORRT` in the environment makes it fail:
abort, killed, refuse.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import signal
from pathlib import Path
from typing import Any

import onnx

from tensorrt.plugins import (  # type: ignore[import-not-found]  # the one in this folder
    IPluginCreatorV3One,
    IPluginV3,
    IPluginV3OneBuild,
    IPluginV3OneCore,
    IPluginV3OneRuntime,
    PluginField,
    PluginFieldCollection,
    PluginFieldType,
    get_plugin_registry,
)

__all__ = [
    "IPluginCreatorV3One",
    "IPluginV3",
    "IPluginV3OneBuild",
    "IPluginV3OneCore",
    "IPluginV3OneRuntime",
    "PluginField",
    "PluginFieldCollection",
    "PluginFieldType",
]
__version__ = os.environ.get("FAKE_TENSORRT_VERSION", "10.3.0")


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        pass

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


class Tensor:
    is_shape_tensor = False

    def __init__(self, value: Any) -> None:
        self.name = value.name
        self._axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        self.shape = tuple(-1 if isinstance(axis, str) else axis for axis in self._axes)

    def get_dimension_name(self, place: int) -> str:
        return str(self._axes[place])


class Network:
    def __init__(self, flags: int) -> None:
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.inputs: list[Tensor] = []
        self.num_outputs = self.num_layers = 0
        self.weights: dict[str, int] = {}
        self.plugins: list[Any] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, place: int) -> Tensor:
        return self.inputs[place]


class _Parser:
    num_errors = 0

    def __init__(self, network: Network, logger: ILogger) -> None:
        self._network, self._logger = network, logger

    def parse_from_file(self, file: str) -> bool:
        assert isinstance(file, str)
        return self._parse(onnx.load(file, load_external_data=False), file)

    def _parse(self, model: Any, file: str) -> bool:
        if os.environ.get("FAKE_TENSORRT") == "refuse":
            self._logger.log(ILogger.ERROR, "node layers.0.mlp: no importer for it")
            return False
        graph, network = model.graph, self._network
        for node in graph.node:
            if node.domain not in ("", "ai.onnx"):
                try:
                    network.plugins.append(get_plugin_registry().created(node))
                except KeyError:
                    self._logger.log(ILogger.ERROR, f"{node.name}: Plugin not found")
                    return False
        read = {name for node in graph.node for name in node.input}
        for value in graph.input:
            network.inputs.append(Tensor(value))
            if value.name not in read:
                self._logger.log(ILogger.WARNING, f"Unused Input: {value.name}")
        network.num_outputs, network.num_layers = len(graph.output), len(graph.node)
        for tensor in graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if entries:
                place = Path(file).parent / entries["location"]
                network.weights[tensor.name] = int(entries["length"])
                assert place.stat().st_size >= int(entries["offset"]) + int(entries["length"])
        return True

    def get_error(self, place: int) -> str:
        raise IndexError(place)


class _MappingParser(_Parser):
    """From 10.13 on: weights are read where they lie."""

    def load_model_proto(self, model: bytes, path: str) -> bool:
        self._model, self._path = onnx.load_from_string(model), path
        self._given: dict[str, bytes] = {}
        return True

    def load_initializer(self, name: str, data: int, size: int) -> bool:
        self._given[name] = ctypes.string_at(data, size)
        return any(tensor.name == name for tensor in self._model.graph.initializer)

    def parse_model_proto(self) -> bool:
        folder = Path(self._path).parent
        for tensor in self._model.graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if entries:
                with (folder / entries["location"]).open("rb") as stream:
                    stream.seek(int(entries["offset"]))
                    assert stream.read(int(entries["length"])) == self._given[tensor.name]
        return self._parse(self._model, self._path)


OnnxParser = _Parser if __version__ == "10.3.0" else _MappingParser


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        assert all(a <= b <= c for a, b, c in zip(least, usual, most, strict=True))
        self.shapes[name] = [list(least), list(usual), list(most)]


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"measured;"


class Config:
    builder_optimization_level = 3
    max_aux_streams = 4

    def __init__(self) -> None:
        self.profiles: list[Profile] = []
        self.timing: TimingCache | None = None

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> TimingCache:
        assert isinstance(content, bytes)
        return TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.timing = cache
        return True

    def get_timing_cache(self) -> TimingCache:
        assert self.timing is not None
        return self.timing


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> Network:
        return Network(flags)

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        if os.environ.get("FAKE_TENSORRT") == "abort":
            os.abort()
        if os.environ.get("FAKE_TENSORRT") == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        free = {tensor.name for tensor in network.inputs if -1 in tensor.shape}
        profiles = [profile.shapes for profile in config.profiles]
        if not profiles or any(set(shapes) != free for shapes in profiles):
            self._logger.log(ILogger.ERROR, "an input has no optimization profile")
            return None
        assert config.max_aux_streams == 0 and config.timing is not None
        told = {
            "tensorrt": __version__,
            "search": config.builder_optimization_level,
            "profile": profiles[0],
            "profiles": profiles,
            "plugins": [plugin.plugin_name for plugin in network.plugins],
            "weights": network.weights,
            "timing": config.timing.content.decode(),
        }
        return json.dumps(told).encode()
