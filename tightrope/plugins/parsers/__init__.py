"""Which ONNX operators each version of TensorRT's parser accepts: lists as data, one file each.

A newer parser accepts more, so a graph that builds on a workstation may fail on a board. The
lists let export and `build` refuse such a graph without TensorRT and without the onnx package.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from tightrope.errors import BackendError, InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OLDEST = "10.3"
"""The version that a standard graph must pass: JetPack 6.2 has it."""
_FLOAT = ("float32", "float16", "bfloat16")
_GROUPS = {"float": _FLOAT, "int": ("int32", "int64")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """What one version's parser accepts."""

    version: str
    topk_limit: int
    """TopK selects fewer than this many."""
    types: Mapping[str, tuple[str, ...]]
    """Operator -> element types that it computes on."""
    type_inputs: Mapping[str, tuple[int, ...]]
    """Operator -> inputs whose element type counts; operators not named: the first."""
    constant_inputs: Mapping[str, tuple[int, ...]]
    """Operator -> inputs that must be constants."""
    attributes: Mapping[str, Mapping[str, tuple[Any, ...]]]
    """Operator -> attribute -> values that are accepted."""
    outputs: Mapping[str, int]
    """Operator -> how many of its outputs may be used."""
    newest_opset: Mapping[str, int]
    """Operator -> newest opset of which it is read right."""
    inputs: Mapping[str, int]
    """Operator -> how many of its inputs are read, where it has more."""
    int4_blocks: tuple[int, ...]
    """Weights that may share one scale."""

    def refuse(self, op_types: Mapping[str, str]) -> list[str]:
        """A sentence for each operator outside the list; op_types: operator -> one such node."""
        return [
            f"operator {operator} (node {node}) is not in the list of TensorRT {self.version}"
            for operator, node in op_types.items()
            if operator not in self.types
        ]


def parser_versions() -> tuple[str, ...]:
    """Versions that there is a list for, oldest first."""
    names = [entry.name for entry in resources.files(__name__).iterdir()]
    found = [name[len("tensorrt-") : -len(".toml")] for name in names if name.endswith(".toml")]
    return tuple(sorted(found, key=_numbers))


def load_parser(version: str) -> Parser:
    """The list of TensorRT `version`, such as 10.3; raises InputError if there is none."""
    if version not in (known := parser_versions()):
        raise InputError(f"no operator list for TensorRT {version!r}; accepted: {', '.join(known)}")
    values = _read(version)
    return Parser(
        version=values["parser"],
        topk_limit=values["topk_limit"],
        types={name: _element_types(words) for name, words in values["types"].items()},
        type_inputs={name: tuple(places) for name, places in values["type_inputs"].items()},
        constant_inputs={name: tuple(places) for name, places in values["constant_inputs"].items()},
        attributes={
            operator: {name: tuple(accepted) for name, accepted in attributes.items()}
            for operator, attributes in values["attributes"].items()
        },
        outputs=values["outputs"],
        newest_opset=values["newest_opset"],
        inputs=values.get("inputs", {}),
        int4_blocks=tuple(values["int4_blocks"]),
    )


def parser_of(tensorrt: str) -> Parser:
    """The list that speaks for an installed TensorRT, such as 10.13.3.9: the newest not above it.

    Raises BackendError for one that is older than all of them.
    """
    numbers = _numbers(tensorrt)
    older = [version for version in parser_versions() if _numbers(version) <= numbers]
    if not older:
        raise BackendError(
            f"TensorRT {tensorrt} is older than {OLDEST}, which standard graphs are made for; "
            "install JetPack 6.1 or newer"
        )
    return load_parser(older[-1])


def _read(version: str) -> dict[str, Any]:
    """What a file says, on top of what it extends."""
    text = (resources.files(__name__) / f"tensorrt-{version}.toml").read_text(encoding="utf-8")
    own = tomllib.loads(text)
    values = _read(own["extends"]) if "extends" in own else {}
    for name, value in own.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    return values


def _numbers(version: str) -> list[int]:
    """ "10.13.3.9" as numbers, up to what is none."""
    return [int(part) for part in version.split(".") if part.isdecimal()]


def _element_types(words: str) -> tuple[str, ...]:
    return tuple(name for word in words.split() for name in _GROUPS.get(word, (word,)))
