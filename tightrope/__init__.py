"""Vision-language and language models on Jetson, inside a latency budget.

    import tightrope as tr

    model = tr.load("scene.bundle")
    answer = model.generate("What is left of the red cup?", images=["frame.jpg"])

Importing the package loads no part of it: each name below is fetched when it is first used, so
that a board without torch, or a command that needs no model, never pays for either.

Axes, in docstrings and in graphs:
    N  rows of a batch              L    layers
    S  tokens of one call           Hq   query heads
    V  visual tokens of an image    Hkv  key and value heads
    K  visual tokens kept           G    query heads per key head, Hq / Hkv
    C  slots of the cache           D    dimension of a head
    U  slots that are handed over   E    width of an embedding
    I  pictures: images, or tiles   H W  height and width of a picture, R of a square one
    T  tokens of a text             Dv   width of the vision tower, dh of its heads
    P  positions of the tower, V and what stands before them
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.budget import Budget
    from tightrope.errors import (
        BackendError,
        BudgetUnreachable,
        BundleError,
        DeviceUnavailable,
        InputError,
        ProfileError,
        TightropeError,
        UnsupportedModel,
    )
    from tightrope.export.config import ExportConfig
    from tightrope.export.export import export
    from tightrope.point import OperatingPoint
    from tightrope.runtime.answer import Answer
    from tightrope.runtime.ceiling import Ceiling
    from tightrope.runtime.chat import Chat
    from tightrope.runtime.model import Model, load

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "BackendError",
    "Budget",
    "BudgetUnreachable",
    "BundleError",
    "Ceiling",
    "Chat",
    "DeviceUnavailable",
    "ExportConfig",
    "InputError",
    "Model",
    "OperatingPoint",
    "ProfileError",
    "TightropeError",
    "UnsupportedModel",
    "export",
    "load",
]

_HOMES = {
    "tightrope.budget": ("Budget",),
    "tightrope.errors": (
        "BackendError",
        "BudgetUnreachable",
        "BundleError",
        "DeviceUnavailable",
        "InputError",
        "ProfileError",
        "TightropeError",
        "UnsupportedModel",
    ),
    "tightrope.export.config": ("ExportConfig",),
    "tightrope.point": ("OperatingPoint",),
    "tightrope.runtime.answer": ("Answer",),
    "tightrope.runtime.ceiling": ("Ceiling",),
    "tightrope.runtime.chat": ("Chat",),
    "tightrope.runtime.model": ("Model", "load"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker that saw this would let every misspelt name pass

    def __getattr__(name):
        if name == "export":
            return importlib.import_module("tightrope.export")
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
