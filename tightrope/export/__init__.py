"""Checkpoint in, bundle out: tracing, selection hooks, slot lowering, int4, graph passes."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    # Importing any part of this package binds `tightrope.export` to the module, over the function
    # of the same name; calling the module therefore calls that function.
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from tightrope.export.export import export

        return export(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
