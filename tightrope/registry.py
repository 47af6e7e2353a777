"""Tables that fill themselves: a method is one file of a folder, and no list names it."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Protocol, TypeVar


class Named(Protocol):
    """An entry of a table."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


def discover(package_name: str, kind: type[Entry]) -> dict[str, Entry]:
    """Every `kind` at the top of a module of the package, by its name; modules in sorted order.

    Raises AssertionError if two share a name.
    """
    found: dict[str, Entry] = {}
    modules = pkgutil.iter_modules(import_module(package_name).__path__, f"{package_name}.")
    for name in sorted(module.name for module in modules):
        for entry in vars(import_module(name)).values():
            if isinstance(entry, kind) and found.setdefault(entry.name, entry) is not entry:
                raise AssertionError(f"{name} has a second {kind.__name__} named {entry.name!r}")
    return found
