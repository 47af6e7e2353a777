"""What a file holds as what was written: values of JSON typed to their leaves, arrays to theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

MOST_BYTES = 1 << 28
"""Of all arrays of a file: position tables and self-tests take a few megabytes."""


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


def stored_arrays(file: Path) -> dict[str, Any]:
    """The arrays of an .npz file; raises whatever numpy does over a damaged one, and ValueError.

    What each array claims is held against what the file has before any memory is asked for.
    """
    import math  # bundle.json alone is read without them
    import zipfile

    import numpy as np

    header = np.lib.format
    with zipfile.ZipFile(file) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
        if total > MOST_BYTES:
            raise ValueError(f"its arrays take {total} bytes, at most {MOST_BYTES} are read")
        for entry in archive.infolist():
            with archive.open(entry) as stream:
                one = header.read_magic(stream) == (1, 0)
                read = header.read_array_header_1_0 if one else header.read_array_header_2_0
                shape, _, dtype = read(stream)
            if math.prod(shape) * dtype.itemsize > entry.file_size:
                raise ValueError(f"{entry.filename} claims {list(shape)} numbers, which it lacks")
    with np.load(file, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays}


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
