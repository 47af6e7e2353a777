"""Of plugins what a graph with own ops needs to be parsed: base classes, fields, a registry."""

from __future__ import annotations

import enum
from typing import Any


class PluginFieldType(enum.Enum):
    FLOAT32, INT32 = 1, 5


class PluginField:
    def __init__(self, name: str, data: Any, type: PluginFieldType) -> None:
        self.name, self.data, self.type = name, data, type


class PluginFieldCollection(list[PluginField]):
    pass


class IPluginV3:
    pass


class IPluginV3OneCore:
    pass


class IPluginV3OneBuild:
    pass


class IPluginV3OneRuntime:
    pass


class IPluginCreatorV3One:
    name = plugin_version = plugin_namespace = ""

    def create_plugin(self, name: str, fc: Any, phase: Any) -> Any:
        raise NotImplementedError


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], IPluginCreatorV3One] = {}

    def register_creator(self, creator: IPluginCreatorV3One, plugin_namespace: str) -> bool:
        self.creators[creator.name, creator.plugin_version, plugin_namespace] = creator
        return True

    def created(self, node: Any) -> Any:
        """The plugin of an ONNX node; KeyError where no creator has its name."""
        import onnx

        given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        version, namespace = (given[f"plugin_{part}"].decode() for part in ("version", "namespace"))
        creator: Any = self.creators[node.op_type, version, namespace]
        fields = [
            PluginField(field.name, given[field.name], field.type)
            for field in creator.field_names
            if field.name in given
        ]
        return creator.create_plugin(node.name, PluginFieldCollection(fields), None)


_registry = Registry()


def get_plugin_registry() -> Registry:
    return _registry
