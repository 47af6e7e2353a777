"""The tables beside this file: modules with their power modes, and JetPack's releases."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import resources
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = dict[str, Any]


@lru_cache(maxsize=1)
def read_families() -> tuple[Table, ...]:
    """The files in `devices/`, one for a family of modules; nobody changes them."""
    folder = resources.files("tightrope.jetson").joinpath("devices")
    files = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return tuple(
        tomllib.loads(file.read_text(encoding="utf-8"))
        for file in files
        if file.name.endswith(".toml")
    )


@lru_cache(maxsize=1)
def read_releases() -> tuple[Table, ...]:
    """Rows of jetpacks.toml; nobody changes them."""
    file = resources.files("tightrope.jetson").joinpath("jetpacks.toml")
    return tuple(tomllib.loads(file.read_text(encoding="utf-8"))["release"])
