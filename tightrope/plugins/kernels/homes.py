"""Where kernels are looked for: in the package, then in folders that were built for one bundle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tightrope.plugins.kernels.launch import COMPILED, Launch, kernel_folder, load_launch

FOLDER = "kernels"
"""In a bundle, and in its state folder: kernels for its own sizes."""


def homes_of(bundle: Path, state: Path) -> tuple[Path, ...]:
    """The folders that have kernels of a bundle, those of the package first."""
    return COMPILED, bundle / FOLDER, state / FOLDER


def load_from(homes: Sequence[Path], name: str, sm: int) -> tuple[Launch, bytes]:
    """How kernel `name` is launched on that SM, and its cubin, from the first folder that has it.

    Raises BackendError where none has, or for files that do not belong together.
    """
    having = [home for home in homes if _is_in(home, name, sm)]
    return load_launch(name, sm, having[0] if having else homes[0])


def missing(homes: Sequence[Path], names: Iterable[str], sm: int) -> list[str]:
    """Those of the kernels that no folder has for that SM, in order, each once."""
    return [
        name for name in dict.fromkeys(names) if not any(_is_in(home, name, sm) for home in homes)
    ]


def _is_in(home: Path, name: str, sm: int) -> bool:
    return (home / kernel_folder(sm) / f"{name}.json").is_file()
