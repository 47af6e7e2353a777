"""Checks of single arguments, each with its sentence: what came, and what is accepted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path

from tightrope.errors import InputError

_SHOWN = 80
_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Bytes, on Linux."""


def check_whole(
    name: str, value: object, *, least: int, most: int | None = None, unit: str = "a whole number"
) -> None:
    """Raises InputError unless `value` is a whole number from `least` to `most`.

    unit: what the number counts, such as "whole pixels". True and False are no numbers here.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if whole and least <= int(value) and (most is None or int(value) <= most):  # type: ignore[call-overload]
        return
    bounds = f"{least} or more" if most is None else f"{least}..{most}"
    raise InputError(f"{name} is {shown(value)}; accepted: {unit}, {bounds}")


def check_number(name: str, value: object, *, least: float, most: float) -> None:
    """Raises InputError unless `value` is a number from `least` to `most`; NaN is none."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and least <= value <= most):  # type: ignore[operator]
        raise InputError(f"{name} is {shown(value)}; accepted: a number, {least:g}..{most:g}")


def check_one_of(name: str, value: object, accepted: Iterable[object]) -> None:
    """Raises InputError unless `value` is one of `accepted`, of the same type: 336.0 is not 336."""
    choices = list(accepted)
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        offered = ", ".join(map(str, choices)) or "none, leave it out"
        raise InputError(f"{name} is {shown(value)}; accepted: {offered}")


def check_share(name: str, value: object) -> None:
    """Raises InputError unless `value` is a number from 0 to 1."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and 0 <= value <= 1):  # type: ignore[operator]  # nor is a NaN
        raise InputError(f"{name} is {shown(value)}; accepted: a share, 0 to 1")


def check_type(name: str, value: object, kind: type, accepted: str) -> None:
    """Raises InputError unless `value` is a `kind`; accepted: how to say what is."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{name} is {shown(value)}; accepted: {accepted}")


def check_path(name: str, value: object, accepted: str) -> Path:
    """`value` as a path; raises InputError for what can be none, showing its beginning.

    accepted: how to say what is. Text that is no path arrives here whole: data URLs, answers of
    programs, 5,000 characters of something else.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text:
        raise InputError(f"{name} is {shown(value)}; accepted: {accepted}")
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:  # half a character, which no name of a file has
        encoded = b"\0"
    if b"\0" in encoded or any(len(part) > _LONGEST_NAME for part in encoded.split(b"/")):
        raise InputError(f"{name} is {shown(text)}, which is no path; accepted: {accepted}")
    if len(encoded) > _LONGEST_PATH:
        raise InputError(f"{name} is {shown(text)}, which is too long; accepted: {accepted}")
    return Path(text)


def shown(value: object) -> str:
    """A value as Python writes it, of a long one its first 80 characters."""
    try:
        text = repr(value[: _SHOWN + 1] if isinstance(value, (str, bytes)) else value)
    except Exception:  # integers of 4,300 digits have no text, and an object may fail in any way
        return f"a {type(value).__name__} that has no text"
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}…"
