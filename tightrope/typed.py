"""Values of JSON as the dataclasses that they were written from, typed to their leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def typed(hint: Any, value: Any, name: str) -> Any:
    """A value of JSON as what the annotation `hint` says; raises TypeError naming the entry."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):  # X | None
        return None if value is None else typed(arguments[0], value, name)
    if is_dataclass(hint) and isinstance(value, Mapping):
        hints = get_type_hints(hint)
        if unknown := sorted(set(value) - set(hints)):
            raise TypeError(f"{name} has unknown entries {unknown}")
        if missing := [field.name for field in fields(hint) if _lacks(value, field)]:
            raise TypeError(f"{name} has no {', '.join(missing)}")
        parts = {key: typed(hints[key], item, f"{name}: {key}") for key, item in value.items()}
        built: Any = hint
        return built(**parts)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(typed(arguments[0], item, name) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {key: typed(arguments[1], item, f"{name}: {key}") for key, item in value.items()}
    if type(value) is not hint:
        kind = getattr(origin or hint, "__name__", hint)
        raise TypeError(f"{name} is {value!r}, which is no {kind}")
    return value


def _lacks(value: Mapping[str, Any], field: Field[Any]) -> bool:
    """Whether an entry that has no default is left out."""
    has_default = field.default is not MISSING or field.default_factory is not MISSING
    return not has_default and field.name not in value
