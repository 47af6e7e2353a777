"""What a schedule states of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A published way to drop visual tokens between decoder layers."""

    name: str
    paper: str
    layers: tuple[int, ...]
    """Tokens are dropped at the input of each of these layers (first layer: 0)."""
    default_keep: str
    acts: str = "inside the language model"
    signals: tuple[str, ...] = ("attention of the last query",)
    text_guided: bool = True
    merges: bool = False
