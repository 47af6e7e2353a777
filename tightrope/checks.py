"""Checks of single arguments, each with its sentence: what came, and what is accepted."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

from tightrope.errors import InputError


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
    raise InputError(f"{name} is {value!r}; accepted: {unit}, {bounds}")


def check_one_of(name: str, value: object, accepted: Iterable[object]) -> None:
    """Raises InputError unless `value` is one of `accepted`, of the same type: 336.0 is not 336."""
    choices = list(accepted)
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        offered = ", ".join(map(str, choices)) or "none, leave it out"
        raise InputError(f"{name} is {value!r}; accepted: {offered}")


def check_type(name: str, value: object, kind: type, accepted: str) -> None:
    """Raises InputError unless `value` is a `kind`; accepted: how to say what is."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{name} is {value!r}; accepted: {accepted}")
