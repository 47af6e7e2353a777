"""The op set: every op by the name that its nodes have. A folder with a `plugin.py` is an op."""

from __future__ import annotations

import functools
import pkgutil
from importlib import import_module
from importlib.util import find_spec

from tightrope.plugins.description import Description

_PACKAGE = "tightrope.plugins"


@functools.cache
def ops() -> dict[str, Description]:
    """Op name -> how it becomes a plugin, in the order of the folders."""
    found: dict[str, Description] = {}
    for folder in pkgutil.iter_modules(import_module(_PACKAGE).__path__, f"{_PACKAGE}."):
        if folder.ispkg and find_spec(f"{folder.name}.plugin") is not None:
            description: Description = import_module(f"{folder.name}.plugin").PLUGIN
            found[description.schema.name] = description
    return found
