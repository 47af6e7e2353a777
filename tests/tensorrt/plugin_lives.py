"""Every own op as a plugin on NVIDIA's real base classes: made, asked all that TensorRT asks.

Without TensorRT there is neither a registry nor an expression: these come of the recorder.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_held: list[Any] = []
"""Plugins: TensorRT 10.3 gives a reference back, which it took itself, where Python drops one."""


class Named:
    """The real module; what needs a TensorRT behind it comes of the recorder."""

    def __init__(self, real: Any, recorder: Any) -> None:
        self._real, self._recorder = real, recorder

    def __getattr__(self, name: str) -> Any:
        if name in ("get_plugin_registry", "DimsExprs"):
            return getattr(self._recorder, name)
        self._recorder.asked.add(name)
        return getattr(self._real, name)


class Noted:
    """A launcher without a GPU."""

    def __init__(self) -> None:
        self.kernels: list[str] = []

    def launch(self, kernel: str, values: Any, stream: int) -> None:
        assert stream == 7
        self.kernels.append(kernel)


def lives(real: Any, recorder: Any) -> dict[str, Any]:
    """What came of each op's plugin, by the op's name."""
    from tightrope.plugins.ops import ops
    from tightrope.plugins.tensorrt.layer import creator_class, register

    trt, launcher = Named(real, recorder), Noted()
    register(trt, launcher)
    told = {}
    for name, description in ops().items():
        creator = creator_class(trt)(description)
        creator.launcher = launcher
        assert isinstance(creator, real.IPluginCreatorV3One)
        fields = list(creator.field_names)
        given = [field for field in fields if field.name != "given"]
        array = _given(description)  # which the field points to
        places = [real.PluginField("given", array, real.PluginFieldType.INT32)]
        wanted = [*given, *(places if description.schema.optional else [])]
        collection = real.PluginFieldCollection(wanted)
        plugin = creator.create_plugin("node", collection, real.TensorRTPhase.BUILD)
        told[name] = [
            [creator.name, creator.plugin_namespace, creator.plugin_version],
            [field.name for field in fields],
            _life(real, recorder, creator, plugin, launcher),
        ]
    return told


def _given(description: Any) -> Any:
    """Of a node that leaves out what it may."""
    schema = description.schema
    needed = [place for place, row in enumerate(schema.inputs) if row.name not in schema.optional]
    return np.array([sum(1 << place for place in needed)], np.int32)


def _life(real: Any, recorder: Any, creator: Any, plugin: Any, launcher: Noted) -> list[Any]:
    """Of one plugin: who it is, its element types, what it keeps, what it launches."""
    assert isinstance(plugin, real.IPluginV3)
    for kind in (
        real.PluginCapabilityType.CORE,
        real.PluginCapabilityType.BUILD,
        real.PluginCapabilityType.RUNTIME,
    ):
        assert plugin.get_capability_interface(kind) is plugin
    rows, outputs = plugin.rows, plugin.description.schema.outputs
    sides = [[4 if isinstance(axis, str) else axis for axis in row.axes] for row in rows]
    found = [_described(real, row, shape) for row, shape in zip(rows, sides, strict=True)]
    made = [_described(real, row, [4] * len(row.axes)) for row in outputs]
    takes = [
        plugin.supports_format_combination(place, [*found, *made], len(found))
        for place in range(len(found) + len(made))
    ]
    found[0].desc.format = real.TensorFormat.CHW32
    assert not plugin.supports_format_combination(0, [*found, *made], len(found))
    types = plugin.get_output_data_types([each.desc.type for each in found])
    plugin.get_output_shapes(
        [[recorder.IExprBuilder().constant(4)] * len(shape) for shape in sides],
        [],
        recorder.IExprBuilder(),
    )
    plugin.configure_plugin(found, made)
    workspace = plugin.get_workspace_size(found, made)
    kept = plugin.get_fields_to_serialize()
    again = creator.create_plugin("engine", kept, real.TensorRTPhase.RUNTIME)
    attached = again.attach_to_context(None)
    ours = attached.clone()
    _held.extend([plugin, again, attached, ours])
    assert ours.attributes == plugin.attributes and ours.rows == plugin.rows
    launcher.kernels.clear()
    ours.on_shape_change([each.desc for each in found], [each.desc for each in made])
    ours.enqueue(
        [each.desc for each in found],
        [each.desc for each in made],
        [256 * (1 + place) for place in range(len(found))],
        [1 << 20] * len(made),
        1 << 24,
        7,
    )
    return [
        [plugin.plugin_name, plugin.plugin_namespace, plugin.plugin_version, plugin.num_outputs],
        all(takes),
        [str(kind) for kind in types],
        [field.name for field in kept],
        workspace,
        list(launcher.kernels),
    ]


def _described(real: Any, row: Any, shape: list[int]) -> Any:
    """A tensor as TensorRT describes it to a plugin."""
    from tightrope.plugins.description import element_of
    from tightrope.plugins.tensorrt.layer import ELEMENTS

    desc = real.PluginTensorDesc()
    desc.dims = real.Dims(shape)
    desc.type = getattr(real.DataType, ELEMENTS[element_of(row, "float16")])
    desc.format = real.TensorFormat.LINEAR
    whole = real.DynamicPluginTensorDesc()
    whole.desc, whole.min, whole.max, whole.opt = desc, desc.dims, desc.dims, desc.dims
    return whole
