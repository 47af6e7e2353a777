"""What a file holds as what was written: values of JSON typed to their leaves, arrays to theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def typed_array(array: Any, kind: str, shape: Sequence[int | None], name: str) -> Any:
    """An array of a file, in rows, if it is of `kind` and `shape`; raises TypeError naming it.

    array: None where the file has none. kind: a dtype such as "float32"; its numbers are finite.
    shape: None is any length.
    """
    import numpy as np  # bundle.json alone is read without it

    wanted = f"{kind} {['any' if length is None else length for length in shape]}"
    if array is None:
        raise TypeError(f"{name} is missing; accepted: {wanted}")
    lengths = zip(array.shape, shape, strict=False)
    if (
        array.dtype != np.dtype(kind)
        or array.ndim != len(shape)
        or any(length not in (None, found) for found, length in lengths)
    ):
        raise TypeError(f"{name} is {array.dtype} {list(array.shape)}; accepted: {wanted}")
    if not np.isfinite(array).all():
        raise TypeError(f"{name} has numbers that are not finite")
    return np.asarray(array, order="C")
