"""Methods that are found by being there: one file in a folder, no table to edit."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol, TypeVar


class Named(Protocol):
    """What a registry holds."""

    @property
    def name(self) -> str:
        """By which it is asked for."""


Method = TypeVar("Method", bound=Named)


def discover(package: str, kind: type[Method]) -> dict[str, Method]:
    """Every `kind` that a module of `package` defines at its top level, by name, sorted."""
    found: dict[str, Method] = {}
    folder = importlib.import_module(package).__path__
    for entry in sorted(pkgutil.iter_modules(folder), key=lambda entry: entry.name):
        module = importlib.import_module(f"{package}.{entry.name}")
        for method in vars(module).values():
            if isinstance(method, kind) and found.setdefault(method.name, method) is not method:
                raise ValueError(f"two methods of {package} are called {method.name}")
    return found
